"""The small codec: it starts as principal components, is causal, and its tokens can be moved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.models import functional, patch_path, patch_read, pca
from mirage_jax.models.codec import CodecConfig, from_patches, to_patches
from mirage_jax.models.learned_read import LearnedReadConfig, exactness

CONFIG = CodecConfig(
    latent_channels=20, spatial_stride=4, temporal_stride=2, width=8, encoder_blocks=1,
    decoder_blocks=2,
)  # fmt: skip


def smooth_clips(count: int = 6, frames: int = 5, seed: int = 0) -> np.ndarray:
    """Clips of slowly moving waves, which few components explain."""
    rng = np.random.default_rng(seed)
    y, x, t = np.mgrid[0:24, 0:32, 0:frames].astype(np.float32)
    clips = []
    for _ in range(count):
        a, b, c, phase = rng.uniform(-0.5, 0.5, 4)
        wave = np.sin(a * x + b * y + c * t + 6 * phase).transpose(2, 0, 1)
        clips.append(127.5 + 100 * wave[..., None] * rng.uniform(0.3, 1, 3))
    return np.stack(clips).astype(np.uint8)


@pytest.fixture(scope="module")
def fitted():
    return pca.fit(CONFIG, functional.init(CONFIG, 0), smooth_clips(24))


def as_video(clips: np.ndarray) -> jax.Array:
    return jnp.asarray(clips, jnp.float32) / 127.5 - 1.0


def perturbed(params):
    """The parameters with every zero-initialised map awake."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.02 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def test_patches_round_trip():
    video = jax.random.normal(jax.random.key(0), (2, 5, 8, 12, 3))
    np.testing.assert_array_equal(from_patches(CONFIG, *to_patches(CONFIG, video)), video)


def test_an_untrained_codec_is_the_pca_of_its_patches(fitted):
    clips = smooth_clips(24)
    video = as_video(clips)
    # Independent oracle: singular vectors of the centred group patches.
    _, later = to_patches(CONFIG, video)
    flat = np.asarray(later, np.float64).reshape(-1, CONFIG.group_patch)
    _, _, basis = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    basis = basis[: CONFIG.latent_channels]
    expected = (flat - flat.mean(0)) @ basis.T @ basis + flat.mean(0)
    _, got = to_patches(CONFIG, functional.apply(CONFIG, fitted, video))
    np.testing.assert_allclose(np.asarray(got).reshape(expected.shape), expected, atol=2e-4)


def test_fitted_latents_have_unit_variance(fitted):
    latents = functional.apply(CONFIG, fitted, as_video(smooth_clips(24)), method="encode")
    flat = np.asarray(latents).reshape(-1, CONFIG.latent_channels)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(flat.std(0), 1, atol=5e-2)


def test_later_frames_never_change_earlier_latents_or_pictures(fitted):
    params = perturbed(fitted)
    video = as_video(smooth_clips(1))
    changed = video.at[:, 3:].set(-video[:, 3:])
    encode = lambda v: functional.apply(CONFIG, params, v, method="encode")  # noqa: E731
    before, after = encode(video), encode(changed)
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert np.abs(before[:, 2] - after[:, 2]).max() > 1e-3
    decode = lambda z: functional.apply(CONFIG, params, z, method="decode")  # noqa: E731
    np.testing.assert_array_equal(decode(before)[:, :3], decode(after)[:, :3])


def test_frame_counts_and_sizes_that_do_not_fit_are_named(fitted):
    with pytest.raises(ValueError, match=r"got 4 frames of 24x32, expected 1 \+ 2n frames"):
        functional.apply(CONFIG, fitted, jnp.zeros((1, 4, 24, 32, 3)), method="encode")
    with pytest.raises(ValueError, match="latent_channels: got 49, expected 1 to 48"):
        CodecConfig(latent_channels=49, spatial_stride=4)


def placed(tokens, **changes) -> patch_read.Placed:
    shape = tokens.shape[:-1]
    fields = {
        "tokens": tokens,
        "visibility": jnp.ones(shape, bool),
        "offset": jnp.zeros((*shape, 2)),
        "axes": jnp.broadcast_to(jnp.eye(3, 2), (*shape, 3, 2)),
        "depth": jnp.full(shape, 3.0),
    }
    return jax.tree.map(lambda leaf: leaf[None], patch_read.Placed(**(fields | changes)))


def place(fitted, read, filled) -> jax.Array:
    path = patch_path.of_codec(CONFIG, fitted)
    return patch_read.place_patches(CONFIG.spatial_stride, path, read, filled)


def still_tokens(fitted, picture) -> jax.Array:
    clip = jnp.repeat(picture[None, None], 5, axis=1)
    return functional.apply(CONFIG, fitted, clip, method="encode")[:, -1:]


def test_patches_placed_by_whole_offsets_show_the_moved_picture(fitted):
    """A camera turned by half a cell sees the tokens of the picture moved by half a cell."""
    wide = as_video(smooth_clips(1, frames=1))[0, 0]
    half = CONFIG.spatial_stride // 2
    stored, seen = wide[:, :-half], wide[:, half:]
    width = stored.shape[1] // CONFIG.spatial_stride * CONFIG.spatial_stride
    tokens = still_tokens(fitted, stored[:, :width])
    expected = still_tokens(fitted, seen[:, :width])
    # Every row now lies half a cell left of the centre of its cell.
    offset = jnp.zeros((*tokens.shape[:-1], 2)).at[..., 0].set(-0.5)
    moved = place(fitted, placed(tokens, offset=offset), tokens)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -2))
    error = jnp.mean(jnp.square(moved - expected)[inner])
    unmoved = jnp.mean(jnp.square(tokens - expected)[inner])
    assert error < 0.15 * unmoved


def test_patches_at_their_own_place_keep_still_tokens(fitted):
    tokens = still_tokens(fitted, as_video(smooth_clips(1))[0, 0])
    same = place(fitted, placed(tokens), jnp.zeros_like(tokens))
    np.testing.assert_allclose(same, tokens, atol=0.2)


def test_where_nothing_is_placed_mean_colours_are_shown(fitted):
    tokens = still_tokens(fitted, as_video(smooth_clips(1))[0, 0])
    empty = placed(jnp.zeros_like(tokens), visibility=jnp.zeros(tokens.shape[:-1], bool))
    shown = place(fitted, empty, tokens)
    held = jnp.repeat(tokens, 2, axis=1)
    picture = functional.apply(CONFIG, fitted, held, method="decode")[0, -1]
    expected = still_tokens(fitted, jnp.asarray(mean_colours(picture), jnp.float32))
    np.testing.assert_allclose(shown, expected, atol=2e-3)


def test_nearer_patches_cover_farther_ones(fitted):
    height, width = 3, 3
    tokens = jax.random.normal(jax.random.key(0), (1, 1, height, width, CONFIG.latent_channels))
    depth = jnp.full((1, 1, height, width), 8.0).at[0, 0, 1, 1].set(1.0)
    # The near patch in the middle is twice as large as its cell and hides part of its neighbours.
    axes = jnp.broadcast_to(jnp.eye(3, 2), (1, 1, height, width, 3, 2))
    far_only = placed(tokens, depth=depth)
    both = placed(tokens, depth=depth, axes=axes.at[0, 0, 1, 1].multiply(2.0))
    assert (
        jnp.abs(place(fitted, both, tokens) - place(fitted, far_only, tokens))[0, 0, 1, 0].max()
        > 0.05
    )
    assert np.isfinite(place(fitted, both, tokens)).all()


def mean_colours(picture) -> np.ndarray:
    """Interpolate the mean colours of the cells of a picture, line by line and column by column."""
    s = CONFIG.spatial_stride
    height, width = picture.shape[:2]
    means = np.asarray(picture, np.float64).reshape(height // s, s, width // s, s, 3).mean((1, 3))
    for axis, size in ((0, height), (1, width)):
        cells = s * (np.arange(size // s) + 0.5)
        along = lambda v, size=size, cells=cells: np.interp(np.arange(size) + 0.5, cells, v)  # noqa: E731
        means = np.apply_along_axis(along, axis, means)
    return means


def largest_row(read, i, j) -> int | None:
    """Return the row of a cell that is seen largest, if it is seen larger than two cells."""
    areas = np.linalg.det(np.float64(read.axes[:, 0, 0, i, j, :2])) * read.visibility[:, 0, 0, i, j]
    return int(areas.argmax()) if areas.max() > 2.0 else None


def slow_picture(patches, base, read) -> np.ndarray:
    """Draw patches pixel by pixel: the nearest surface hides others, edges fade, then are faint."""
    k, h, w, s = patches.shape[:4]
    picture = np.array(base, np.float64)
    for y, x in np.ndindex(h * s, w * s):
        found = []
        for c, di, dj in np.ndindex(k, 5, 5):
            i, j = y // s + di - 2, x // s + dj - 2
            if not (0 <= i < h and 0 <= j < w and read.visibility[c, 0, 0, i, j]):
                continue
            beyond = di in (0, 4) or dj in (0, 4)
            if beyond and c != largest_row(read, i, j):
                continue
            axes = np.float64(read.axes[c, 0, 0, i, j])
            if np.linalg.det(axes[:2]) <= 1e-3:
                continue
            centre = np.array([j, i]) + 0.5 + np.float64(read.offset[c, 0, 0, i, j])
            place = np.linalg.solve(axes[:2], (np.array([x, y]) + 0.5) / s - centre)
            away = np.abs(place).max()
            if away >= 1.0:
                continue
            column, line = np.clip((place + 0.5) * s - 0.5, 0, s - 1)
            tents = [np.maximum(0, 1 - np.abs(v - np.arange(s))) for v in (line, column)]
            colour = np.einsum("a,b,abc->c", *tents, patches[c, i, j])
            fade = np.prod(np.clip(s * (0.5 - np.abs(place)) + 0.5, 0, 1))
            weight = fade + 0.01 * min(1.0, 2 - 2 * away)
            depth = float(read.depth[c, 0, 0, i, j]) * np.exp(np.clip(axes[2] @ place, -0.5, 0.5))
            found.append((depth, away <= 0.5, weight, colour))
        front = min([depth for depth, core, _, _ in found if core], default=np.inf)
        shown = [(weight, colour) for d, _, weight, colour in found if d <= 1.05 * front]
        shown = sorted(shown, key=lambda pair: -pair[0])[:2]
        cover = sum(weight for weight, _ in shown)
        if cover > 0:
            colour = sum(weight * colour for weight, colour in shown) / cover
            share = min(cover / 0.005, 1.0)
            picture[y, x] = share * colour + (1 - share) * picture[y, x]
    return picture


def test_patches_are_drawn_in_perspective_as_a_slow_loop_draws_them(fitted):
    rng = np.random.default_rng(4)
    shape, s = (2, 1, 1, 3, 4), CONFIG.spatial_stride
    tokens = rng.normal(size=(*shape, CONFIG.latent_channels)).astype(np.float32)
    axes = np.eye(3, 2) * rng.uniform(0.6, 1.7, (*shape, 1, 1)) + 0.25 * rng.normal(size=(3, 2))
    read = patch_read.Placed(
        tokens=tokens,
        visibility=rng.random(shape) < 0.7,
        offset=rng.uniform(-0.5, 0.5, (*shape, 2)).astype(np.float32),
        axes=axes.astype(np.float32),
        depth=rng.choice([2.0, 2.05, 5.0], shape).astype(np.float32),
    )
    filled = rng.normal(size=(1, 1, 3, 4, CONFIG.latent_channels)).astype(np.float32)
    drawn = place(fitted, read, jnp.asarray(filled))
    held = jnp.repeat(jnp.concatenate([tokens[:, 0], filled]), 2, axis=1)
    pictures = functional.apply(CONFIG, fitted, held, method="decode")[:, -1]
    patches = np.asarray(pictures).reshape(3, 3, s, 4, s, 3).swapaxes(2, 3)
    picture = slow_picture(patches[:2], mean_colours(pictures[2]), read)
    expected = still_tokens(fitted, jnp.asarray(picture, jnp.float32))
    np.testing.assert_allclose(drawn, expected, atol=2e-3)


def test_learned_read_leaves_exact_cells_alone_and_starts_as_its_start():
    config = LearnedReadConfig(latent_channels=4, feature_channels=6, width=8, blocks=1)
    params = functional.init(config, 0)
    tokens = jax.random.normal(jax.random.key(1), (1, 2, 3, 3, 4))
    features = jnp.zeros((1, 2, 3, 3, 6)).at[..., 0].set(1.0).at[:, 1, ..., 1].set(0.4)
    np.testing.assert_array_equal(
        functional.apply(config, params, tokens, tokens, features), tokens
    )
    corrected = functional.apply(config, perturbed(params), tokens, tokens, features)
    np.testing.assert_array_equal(corrected[:, 0], tokens[:, 0])
    assert jnp.abs(corrected[:, 1] - tokens[:, 1]).max() > 1e-3
    np.testing.assert_array_equal(exactness(jnp.zeros((2, 6))), 0)
    left = dataclasses.replace(config, corrects=False)
    start = functional.apply(left, perturbed(params), tokens, 2.0 * tokens, features)
    np.testing.assert_array_equal(start, 2.0 * tokens)
