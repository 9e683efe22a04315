"""Linear maps between tokens and patches: fitted as least squares are, and a way for any codec."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_world import flat_scene, sideways_and_back, tiny_spec, wall_clip, world_of

from mirage_jax.eval.reads.evaluate import ReadConfig, evaluate_read, rows_of
from mirage_jax.eval.views import stack_starts
from mirage_jax.geometry.camera import Camera
from mirage_jax.models import functional, patch_path, patch_read, pca
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.codec import CodecConfig
from mirage_jax.models.learned_read import LearnedReadConfig
from mirage_jax.rollout.loop import RolloutConfig, rollout
from mirage_jax.rollout.world import World
from mirage_jax.train.fit_patches import fit_path, pictures_of
from mirage_jax.train.latents import CodecWeights

LINEAR = CodecConfig(latent_channels=48, spatial_stride=4, temporal_stride=2, width=0)
WAN = AutoencoderConfig(
    latent_channels=8,
    encoder_width=4,
    decoder_width=4,
    multipliers=(1, 1, 1, 1),
    blocks=1,
    patch=1,
    shortcuts=False,
)


def autoencoder_world(**changes) -> World:
    spec = tiny_spec()
    read = LearnedReadConfig(8, width=8, blocks=1, placed=True, patch=8, corrects=False, **changes)
    memory = dataclasses.replace(spec.memory, axes=True)
    chunk = dataclasses.replace(spec.chunk, temporal_stride=WAN.temporal_stride)
    return world_of(
        dataclasses.replace(spec, codec=WAN, learned_read=read, memory=memory, chunk=chunk)
    )


def test_maps_fitted_in_parts_are_those_of_numpys_least_squares():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(300, 5)) * [3, 1, 1, 0.1, 2] + 4
    planes = tokens @ rng.normal(size=(5, 12)) + rng.normal(size=(300, 12)) - 2
    fit = patch_path.PatchFit()
    for start, stop in ((0, 1), (1, 120), (120, 300)):
        fit.add(tokens[start:stop], planes[start:stop])
    path = fit.solve(ridge=0.0)
    for x, y, kernel, bias in (
        (tokens, planes, path.pixels, path.pixels_bias),
        (planes, tokens, path.tokens, path.tokens_bias),
    ):
        expected = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
        np.testing.assert_allclose(kernel, expected[:-1], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(bias, expected[-1], rtol=1e-4, atol=1e-4)


def test_a_strong_ridge_leaves_the_mean():
    rng = np.random.default_rng(1)
    fit = patch_path.PatchFit()
    planes = rng.normal(size=(50, 3)) + 7
    fit.add(rng.normal(size=(50, 2)), planes)
    path = fit.solve(ridge=1e8)
    np.testing.assert_allclose(path.pixels, 0, atol=1e-6)
    np.testing.assert_allclose(path.pixels_bias, planes.mean(0), atol=1e-5)
    with pytest.raises(ValueError, match="got no tokens"):
        patch_path.PatchFit().solve()


@pytest.fixture(scope="module")
def linear() -> CodecWeights:
    """A codec that loses nothing of a still patch of noise: as many channels as values."""
    rng = np.random.default_rng(2)
    still = rng.integers(0, 255, (64, 1, 16, 16, 3), dtype=np.uint8)
    clips = np.repeat(still, 3, axis=1)
    params = pca.fit(LINEAR, functional.init(LINEAR, 0), clips)
    return CodecWeights(LINEAR, params, "")


def test_the_fit_of_a_linear_codec_is_its_own_path(linear):
    pictures = np.random.default_rng(3).integers(0, 255, (48, 16, 16, 3), dtype=np.uint8)
    fitted = fit_path(linear, pictures)
    own = patch_path.of_codec(LINEAR, linear.params)
    # The ridge, a ten thousandth of the variance, shrinks each map by as much.
    for name, value in own._asdict().items():
        np.testing.assert_allclose(getattr(fitted, name), value, atol=5e-3, err_msg=name)
    tokens = jax.random.normal(jax.random.key(0), (7, 48))
    assert float(jnp.abs(fitted.unsaid(tokens)).max()) < 5e-3


def test_patches_of_a_fitted_path_move_with_the_camera(linear):
    """Every row lies half a cell to the left: the tokens are those of the shifted picture."""
    rng = np.random.default_rng(4)
    pictures = rng.integers(0, 255, (48, 16, 16, 3), dtype=np.uint8)
    path = fit_path(linear, pictures)
    wide = rng.uniform(-1, 1, (1, 16, 22, 3)).astype(np.float32)
    stored, seen = (path.to_tokens(patch_path.planes_of(wide[:, :, x : x + 16], 4)) for x in (0, 2))
    shape = stored.shape[:-1]
    rows = patch_read.Placed(
        tokens=stored[None],
        visibility=jnp.ones((1, *shape), bool),
        offset=jnp.zeros((1, *shape, 2)).at[..., 0].set(-0.5),
        axes=jnp.broadcast_to(jnp.eye(3, 2), (1, *shape, 3, 2)),
        depth=jnp.full((1, *shape), 3.0),
    )
    moved = patch_read.place_patches(4, path, rows, stored)
    # The faint rims of the neighbours are what remains.
    np.testing.assert_allclose(moved[:, :, :-1], seen[:, :, :-1], atol=0.1)
    assert float(jnp.abs(stored - seen)[:, :, :-1].max()) > 1.0


def test_a_placed_read_without_maps_is_refused():
    spec = tiny_spec()
    placed = dataclasses.replace(spec.learned_read, placed=True)
    chunk = dataclasses.replace(spec.chunk, temporal_stride=WAN.temporal_stride)
    with pytest.raises(ValueError, match=r"got 0 with placed=True and a AutoencoderConfig, expec"):
        dataclasses.replace(spec, codec=WAN, learned_read=placed, chunk=chunk)
    fitted = dataclasses.replace(placed, patch=8)
    with pytest.raises(ValueError, match=r"expected 0, the codec has a linear path of its own"):
        dataclasses.replace(spec, learned_read=fitted)


def test_pictures_are_spread_over_clips_and_their_frames():
    clips = [
        {"rgb": np.full((9, 8, 8, 3), 10 * i) + np.arange(9)[:, None, None, None]}
        for i in (0, 1, 2)
    ]
    shown = pictures_of(clips, 6)[:, 0, 0, 0]
    assert (shown // 10).tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(shown % 10)) >= 5


def test_an_autoencoder_world_reads_generates_and_is_evaluated(tmp_path):
    clips = [wall_clip(9, seed) for seed in range(2)]
    for clip in clips:
        clip["cam_to_world"][:, 0, 3] = np.linspace(0, 0.3, 9)
    world = autoencoder_world(keeps=1.0)
    codec = CodecWeights(WAN, world.params["codec"], "")
    path = fit_path(codec, pictures_of(clips, 4))
    read = patch_path.with_path(world.params["learned_read"], path)
    world = World(world.spec, world.params | {"learned_read": read})
    assert {"placed", "learned", "own"} <= set(rows_of(world.spec))
    only = World(world.spec, {name: world.params[name] for name in ("codec", "learned_read")})
    found = evaluate_read(only, clips, ReadConfig(gaps=(4,)), tmp_path)["gap4"]
    assert all(np.isfinite(row["psnr"]) for row in found.values())
    assert found["placed"]["psnr"] == pytest.approx(found["learned"]["psnr"], abs=0.3)
    path_of_camera = sideways_and_back(13, 0.5)
    cameras = Camera(*(np.asarray(leaf)[None] for leaf in path_of_camera))
    results = list(rollout(world, stack_starts([flat_scene()]), cameras, RolloutConfig()))
    latents = np.asarray(results[-1].state.latents)
    assert latents.shape[1:] == (4, 4, 6, 8)
    assert np.isfinite(latents).all()
