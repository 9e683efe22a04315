"""Checkpoints: what is saved comes back, damage is found, and nothing good is lost to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.train.checkpoint import Checkpoints, Keep, OtherArrays, SaveError
from mirage_jax.train.fingerprint import fingerprints
from mirage_jax.train.resume import saved_state
from mirage_jax.train.state import TrainState

SIZE = 4096


def state_at(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    params = {"a": {"kernel": jnp.asarray(rng.normal(size=(SIZE, 3)), jnp.float32)}}
    moments = ({"mu": jnp.asarray(rng.normal(size=7), jnp.bfloat16)}, jnp.int32(step))
    return TrainState(jnp.int32(step), params, moments, {})


def same(a: TrainState, b: TrainState) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@pytest.fixture
def open_at(tmp_path):
    """Return a function that opens the checkpoints, reporting into `lines`."""
    opened, lines = [], []

    def open_again(*keep):
        made = Checkpoints(tmp_path / "stage" / "checkpoints", Keep(*keep), lines.append)
        opened.append(made)
        return made

    open_again.lines = lines
    yield open_again
    for one in opened:
        one.close()


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(state_at(step))
    checkpoints.wait()


def data_file(checkpoints, step):
    files = [p for p in (checkpoints.directory / str(step)).rglob("*") if p.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def test_the_state_may_be_overwritten_as_soon_as_save_has_returned(open_at):
    checkpoints = open_at()

    @functools.partial(jax.jit, donate_argnums=0)
    def overwrite(state):
        return jax.tree.map(lambda leaf: leaf * 0 - 1, state)

    state, kept = state_at(3), jax.tree.map(np.array, state_at(3))
    checkpoints.save(state)
    for _ in range(20):
        state = overwrite(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    assert same(checkpoints.restore(state_at(0)), kept)


def test_the_newest_and_multiples_are_kept(open_at):
    save(open_at(2, 20), *range(5, 66, 5))
    assert open_at().steps() == [20, 40, 60, 65]


def cut_short(content):
    return content[: len(content) // 2]


def emptied(content):
    return b""


def one_bit(content):
    changed = bytearray(content)
    changed[len(changed) // 3] ^= 4
    return bytes(changed)


@pytest.mark.parametrize("damage", [cut_short, emptied, one_bit])
def test_a_damaged_checkpoint_is_moved_aside_and_the_one_before_it_taken(open_at, damage):
    save(open_at(3), 10, 20, 30)
    checkpoints = open_at(3)
    path = data_file(checkpoints, 30)
    path.write_bytes(damage(path.read_bytes()))
    restored = checkpoints.restore(state_at(0))
    assert same(restored, state_at(20))
    (line,) = open_at.lines
    aside = checkpoints.directory.parent / "damaged" / "30"
    assert line.startswith("checkpoint of step 30 is damaged (")
    assert line.endswith(f"moved to {aside}, using that of step 20")
    assert aside.is_dir()
    save(checkpoints, 30)
    assert same(open_at().restore(state_at(0)), state_at(30))


@pytest.mark.parametrize(
    "name", ["_CHECKPOINT_METADATA", "default/_METADATA", "default/manifest.ocdbt"]
)
@pytest.mark.parametrize("damage", [cut_short, None])
def test_any_file_may_be_the_one_that_is_damaged_or_lost(open_at, name, damage):
    save(open_at(), 1, 2)
    checkpoints = open_at()
    path = checkpoints.directory / "2" / name
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    assert same(checkpoints.restore(state_at(0)), state_at(1))
    assert "checkpoint of step 2 is damaged" in open_at.lines[0]


def test_when_all_are_damaged_a_run_begins_anew_and_says_so(open_at):
    save(open_at(), 1)
    checkpoints = open_at()
    data_file(checkpoints, 1).unlink()
    assert checkpoints.restore(state_at(0)) is None
    assert "there is none before it" in open_at.lines[0]


def test_a_checkpoint_of_other_arrays_is_refused_by_name_and_left_where_it_is(open_at):
    save(open_at(), 1)
    checkpoints = open_at()
    other = state_at(0)._replace(params={"b": jnp.zeros(3)})
    with pytest.raises(OtherArrays, match=r"3 differ|2 differ") as error:
        checkpoints.restore(other)
    assert "params/a/kernel: has ['float32', [4096, 3]], wanted nothing" in str(error.value)
    assert checkpoints.steps() == [1]


def test_a_save_that_fails_says_which_one_is_left(open_at):
    checkpoints = open_at()
    save(checkpoints, 1)
    moved = checkpoints.directory.with_name("away")
    checkpoints.directory.rename(moved)
    checkpoints.directory.write_text("no folder any more")
    try:
        with pytest.raises(SaveError, match=r"checkpoint of step 2 could not be written to"):
            save(checkpoints, 2)
        checkpoints.close()  # says nothing new
    finally:
        checkpoints.directory.unlink()
        moved.rename(checkpoints.directory)
    assert checkpoints.steps() == [1]


def test_what_was_not_finished_is_removed_and_leaves_the_one_before(open_at):
    save(open_at(), 24)
    half = open_at().directory / "99.orbax-checkpoint-tmp-0"
    half.mkdir()
    (half / "manifest.ocdbt").write_bytes(b"cut short")
    again = open_at()
    assert again.latest_step() == 24
    assert not half.exists()


def test_a_run_resumes_as_it_is_told(open_at, tmp_path):
    like, checkpoints = state_at(0), open_at()
    assert saved_state(checkpoints, "auto", like) is None
    assert saved_state(checkpoints, "never", like) is None
    with pytest.raises(FileNotFoundError, match="found no checkpoint at nowhere"):
        saved_state(checkpoints, "nowhere", like)

    others = Checkpoints(tmp_path / "other" / "checkpoints")
    save(others, 7, 8)
    for path in (tmp_path / "other", others.directory, others.directory / "8"):
        assert same(saved_state(checkpoints, str(path), like), state_at(8))
    assert same(saved_state(checkpoints, str(others.directory / "7"), like), state_at(7))
    data_file(others, 8).unlink()
    with pytest.raises(ValueError, match="checkpoint .*8 is damaged"):
        saved_state(checkpoints, str(others.directory), like)
    assert others.steps() == [7, 8]  # another run's is not touched
    others.close()

    save(checkpoints, 9)
    assert same(saved_state(checkpoints, str(others.directory / "7"), like), state_at(9))
    with pytest.raises(ValueError, match="holds a checkpoint of step 9, expected none"):
        saved_state(checkpoints, "never", like)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "float16", "int8"])
def test_a_fingerprint_is_the_sum_of_words_by_place(dtype):
    values = np.random.default_rng(5).normal(size=(3, 5, 2)) * 50
    array = jnp.asarray(values).astype(dtype)
    host = np.asarray(array)
    words = host.reshape(-1).view(f"u{host.dtype.itemsize}").astype(object)
    total = 0
    for place, word in enumerate(words):
        mixed = place ^ (place >> 16)
        mixed = (mixed * 0x85EBCA6B) % 2**32
        mixed ^= mixed >> 13
        mixed = (mixed * 0xC2B2AE35) % 2**32
        mixed = (mixed ^ (mixed >> 16)) | 1
        total = (total + int(word) * mixed) % 2**32
    assert fingerprints({"x": {"y": array}}) == {"x/y": total}


def test_fingerprints_tell_any_flipped_bit_and_any_two_swapped_values():
    array = np.random.default_rng(0).normal(size=16).astype(np.float32)
    whole = fingerprints([jnp.asarray(array)])
    for place in range(16):
        for bit in range(32):
            changed = array.copy()
            changed.view(np.uint32)[place] ^= np.uint32(1 << bit)
            assert fingerprints([jnp.asarray(changed)]) != whole
    swapped = array[[1, 0, *range(2, 16)]]
    assert fingerprints([jnp.asarray(swapped)]) != whole
    assert fingerprints([jnp.zeros((0, 3))]) == {"0": 0}
