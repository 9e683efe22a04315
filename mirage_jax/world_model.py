"""One chunk's arithmetic, shared by training and rollout.

So training sees exactly what rollout sees.

The parts of a world model (codec, depth head, learned read, denoiser) and the memory know nothing
of each other; this module joins them: memory + cameras -> `observe` -> condition ->
`predict_velocity` / `sample_chunk` -> latents -> `latent_depth` -> `remember`. Every function is
pure, batched over a leading axis b, and safe under jit and grad.

Conventions: cameras given here carry intrinsics of the *latent grid* (see `grid_camera`). Frames
are ordered target first, preceding after, as the denoiser wants them. Parameters are a plain dict
with the keys "codec", "depth_head", "denoiser" and, where there is one, "learned_read". Latents are
the codec's normalised ones.
Read next: `mirage_jax/rollout/chunk.py` (one chunk of a rollout), `mirage_jax/train/objective.py`
(its loss).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mirage_jax.diffusion import solvers
from mirage_jax.diffusion.config import SamplingConfig
from mirage_jax.geometry import camera as camera_lib
from mirage_jax.geometry import depth as depth_lib
from mirage_jax.geometry import projection
from mirage_jax.memory import features as feature_lib
from mirage_jax.memory import fill, read, state, write
from mirage_jax.models import condition as condition_lib
from mirage_jax.models import functional, patch_read
from mirage_jax.models.config import ChunkConfig
from mirage_jax.models.denoiser import FrameLayout
from mirage_jax.models.learned_read import exactness

Params = Mapping[str, Any]

# Sigma below which dividing by it would only amplify rounding; the solver never asks for less but
# at its last step.
_SMALLEST_SIGMA = 1e-3

# Latent frames of a camera at rest until its latents settle.
HELD_LATENTS = 2

# Share of a cell's pixels that must be static for its token to be remembered.
_KEPT_SHARE = 0.75

# Sky is remembered as a surface this far away, in scene units: it then turns with the camera but
# never moves past it.
FAR = 1000.0


class WorldConfigLike(Protocol):
    """What these functions need of a config.

    The training config and a loaded world both have it.
    """

    @property
    def codec(self) -> Any:
        """The codec."""
        ...

    @property
    def depth_head(self) -> Any:
        """The latent depth head."""
        ...

    @property
    def denoiser(self) -> Any:
        """The denoiser."""
        ...

    @property
    def learned_read(self) -> Any:
        """The learned read; None where the raw read is used."""
        ...

    @property
    def condition(self) -> condition_lib.ConditionConfig:
        """What the memory branch is shown."""
        ...

    @property
    def memory(self) -> state.MemoryConfig:
        """Size and rules of the memory."""
        ...

    @property
    def chunk(self) -> ChunkConfig:
        """The shape of one chunk."""
        ...


class Observation(NamedTuple):
    """What the memory shows to some cameras.

    Attributes:
        read: the raw read, leading axes [b, t].
        filled: [b, t, h, w, c] the raw tokens with unseen cells filled from seen ones.
        base: [b, t, h, w, c] `filled` corrected by the learned read, where there is one: what the
            denoiser starts from.
        rays: [b, t, h, w, 6] Plücker rays relative to the reference camera.
        condition: [b, t, h, w, channels] input of the memory branch.
    """

    read: read.MemoryRead
    filled: Float[Array, "b t h w c"]
    base: Float[Array, "b t h w c"]
    rays: Float[Array, "b t h w 6"]
    condition: Float[Array, "b t h w cc"]


def grid_camera(
    camera: camera_lib.Camera, frame_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> camera_lib.Camera:
    """Return the camera with intrinsics in cells of a latent grid instead of pixels of a frame."""
    return camera_lib.Camera(
        cam_to_world=camera.cam_to_world,
        intrinsics=camera_lib.rescale_intrinsics(camera.intrinsics, frame_hw, grid_hw),
    )


def grid_depth(depth: Any, keep: Any, grid_hw: tuple[int, int]) -> tuple[Any, Any]:
    """Bring per-pixel depth and mask to the latent grid.

    Depth is interpolated where the surface is smooth. On a depth edge the cell takes the depth of
    its centre pixel instead: a point on one of the two surfaces, never between them. A cell is kept
    if at least three quarters of its pixels are.

    Args:
        depth: [*t, H, W] z-depth in scene units, 0 = unknown; H and W are multiples of the grid's.
        keep: [*t, H, W] True where the content is static and may be remembered.
        grid_hw: cells of the latent grid.

    Returns:
        depth [*t, h, w], 0 = unknown, and keep [*t, h, w], False also where depth is unknown.
    """
    rows, columns = depth.shape[-2] // grid_hw[0], depth.shape[-1] // grid_hw[1]
    xp = depth.__array_namespace__()
    smooth = depth_lib.resize_validity(depth_lib.edge_validity(depth) & (depth > 0), grid_hw)
    centre = depth[..., rows // 2 :: rows, columns // 2 :: columns]
    small = xp.where(smooth, depth_lib.resize_depth(depth, grid_hw), centre)
    share = keep.reshape(*keep.shape[:-2], grid_hw[0], rows, grid_hw[1], columns).mean((-3, -1))
    return small, (share >= _KEPT_SHARE) & (small > 0)


def empty_memory(config: WorldConfigLike, batch: int) -> state.LatentMemory:
    """Return `batch` empty memories stacked on a leading axis."""
    single = state.empty(config.memory)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (batch, *leaf.shape)), single)


def remember(
    config: WorldConfigLike,
    memory: state.LatentMemory,
    latents: Float[Array, "b t h w c"],
    depth: Float[Array, "b t h w"],
    keep: Bool[Array, "b t h w"],
    cameras: camera_lib.Camera,
    time: Any,
) -> tuple[state.LatentMemory, write.WriteReport]:
    """Write latent frames into the memories of a batch.

    Args:
        config: see `WorldConfigLike`.
        memory: stacked memories [b].
        latents: tokens to store.
        depth: z-depth of each cell; cells at 0 are not written.
        keep: False where a cell must not be written (moving things, sky, depth edges).
        cameras: [b, t] with grid intrinsics.
        time: scalar or [b, t] int stamp of the rows.

    Returns:
        The grown memories and what was written, merged and dropped, each [b].
    """
    times = jnp.broadcast_to(jnp.asarray(time, jnp.int32), depth.shape[:2])

    def one(memory, latents, depth, keep, cameras, times):
        return write.write_frames(memory, latents, depth, keep, cameras, config.memory, times)

    return jax.vmap(one)(memory, latents, depth, keep, cameras, times)


def observe(
    config: WorldConfigLike,
    params: Params,
    memory: state.LatentMemory,
    cameras: camera_lib.Camera,
    grid_hw: tuple[int, int],
    reference: camera_lib.Camera,
) -> Observation:
    """Read the memories at some cameras and build the denoiser's condition from what was found.

    Args:
        config: see `WorldConfigLike`.
        params: parameters of the models.
        memory: stacked memories [b].
        cameras: [b, t] with grid intrinsics, target frames first, then preceding ones.
        grid_hw: (h, w) of the latent grid.
        reference: [b] the camera rays are expressed in: that of the chunk's first target frame.

    Returns:
        The observation of all t frames.
    """
    found = jax.vmap(lambda m, c: read.read(m, c, grid_hw, config.memory))(memory, cameras)
    base = filled = fill.fill_holes(found.tokens, found.visibility)
    if config.learned_read is not None:
        features = feature_lib.read_features(found)
        if config.learned_read.placed:
            base = place(config, params, found, filled, features)
        base = functional.apply(
            config.learned_read, params["learned_read"], found.tokens, base, features
        )
    relative = camera_lib.relative_to(cameras, jax.tree.map(lambda leaf: leaf[:, None], reference))
    rays = projection.plucker_rays(relative, grid_hw)
    condition = condition_lib.build_condition(
        config.condition,
        tokens=base,
        visibility=found.visibility,
        depth=found.depth,
        rays=rays,
        geometry=feature_lib.read_geometry(found),
    )
    return Observation(read=found, filled=filled, base=base, rays=rays, condition=condition)


def place(
    config: WorldConfigLike, params: Params, found: read.MemoryRead, filled: Any, features: Any
) -> Float[Array, "b t h w c"]:
    """Return the read with patches placed where they are seen; exact cells keep their token."""
    rows = patch_read.Placed(found.tokens, found.visibility, found.offset, found.scale, found.depth)
    placed = patch_read.place_patches(config.codec, params["codec"], rows, filled)
    exact = exactness(features)[..., None]
    return exact * filled + (1.0 - exact) * placed


class ChunkInputs(NamedTuple):
    """What the denoiser is given of one chunk besides the noisy frames.

    Attributes:
        first: [b, h, w, c] clean latent of target frame 0.
        preceding: [b, p, h, w, c] clean latents right before it (p may be 0).
        condition: [b, T + p, h, w, channels] from `observe`, target frames first.
        base: [b, T, h, w, c] read at the target frames, the guess that is corrected.
        exact: [b, T, h, w] how nearly each cell is seen as it was stored, 0 to 1; a denoiser that
            predicts clean latents corrects the base only as far as this is below 1.
        text: [b, n, dt] text embeddings or None.
    """

    first: Float[Array, "b h w c"]
    preceding: Float[Array, "b p h w c"]
    condition: Float[Array, "b tp h w cc"]
    base: Float[Array, "b t h w c"]
    exact: Float[Array, "b t h w"]
    text: Any = None


def chunk_inputs(first, preceding, observation: Observation, text=None) -> ChunkInputs:
    """Bundle the clean latents and the observation of a chunk.

    Target frame 0 of the base is the clean one.
    """
    targets = observation.base.shape[1] - preceding.shape[1]
    base = observation.base[:, :targets].at[:, 0].set(first)
    exact = exactness(feature_lib.read_features(observation.read))[:, :targets]
    return ChunkInputs(first, preceding, observation.condition, base, exact, text)


def predict_velocity(
    config: WorldConfigLike,
    params: Params,
    noisy: Float[Array, "b t h w c"],
    sigma: Float[Array, "b t"],
    inputs: ChunkInputs,
) -> Float[Array, "b t h w c"]:
    """Return the flow velocity (noise minus clean) of the target frames.

    Target frame 0 and the preceding frames are clean: their noise level is 0 whatever `sigma` says,
    and the returned velocity of frame 0 is 0.

    Args:
        config: see `WorldConfigLike`.
        params: parameters of the models.
        noisy: target frames at noise level sigma; frame 0 is replaced by the clean one.
        sigma: noise level of each target frame in [0, 1].
        inputs: the clean frames and the condition.

    Returns:
        The velocity; the clean estimate is `noisy - sigma * velocity`.
    """
    batch, targets = noisy.shape[:2]
    preceding = inputs.preceding.shape[1]
    noisy = noisy.at[:, 0].set(inputs.first)
    sigma = sigma.at[:, 0].set(0.0)
    frames = jnp.concatenate([noisy, inputs.preceding.astype(noisy.dtype)], axis=1)
    timestep = jnp.concatenate([1000.0 * sigma, jnp.zeros((batch, preceding), sigma.dtype)], axis=1)
    out = functional.apply(
        config.denoiser,
        params["denoiser"],
        frames,
        timestep,
        inputs.condition,
        inputs.text,
        FrameLayout(references=0, target=targets, preceding=preceding),
        base=inputs.base,
    )
    if config.denoiser.prediction == "clean":
        out = out + inputs.exact[..., None] * (inputs.base - out)
        out = (noisy - out) / jnp.maximum(sigma, _SMALLEST_SIGMA)[:, :, None, None, None]
    return out.at[:, 0].set(0.0)


def sample_chunk(
    config: WorldConfigLike,
    params: Params,
    inputs: ChunkInputs,
    noise: Float[Array, "b t h w c"],
    sampling: SamplingConfig,
) -> Float[Array, "b t h w c"]:
    """Denoise the target frames of a chunk from noise.

    Frame 0 is held clean before and after every solver step.
    """

    def velocity(noisy, sigma, timestep):
        del timestep  # predict_velocity derives it per frame, frame 0 being clean
        levels = jnp.broadcast_to(jnp.asarray(sigma, noisy.dtype), noisy.shape[:2])
        return predict_velocity(config, params, noisy, levels, inputs)

    plan = solvers.schedule(sampling.steps, sampling.shift)
    is_first = (jnp.arange(noise.shape[1]) == 0)[None, :, None, None, None]
    hold = solvers.Hold(mask=is_first, value=inputs.first[:, None])
    return solvers.sample(velocity, noise, plan, solver=sampling.solver, hold=hold)


def latent_depth(
    config: WorldConfigLike,
    params: Params,
    latents: Float[Array, "b t h w c"],
    observation: Observation,
) -> tuple[Float[Array, "b t h w"], Bool[Array, "b t h w"]]:
    """Read z-depth off latents with the depth head.

    The memory's own depth and the camera rays help it.

    Args:
        config: see `WorldConfigLike`.
        params: parameters of the models.
        latents: clean latents of the frames.
        observation: what the memory shows to the same frames' cameras.

    Returns:
        z-depth in scene units (`FAR` where the head sees sky), and True where it is finite.
    """
    log_depth, sky = functional.apply(
        config.depth_head,
        params["depth_head"],
        latents,
        observation.read.depth,
        observation.read.visibility,
        observation.rays,
    )
    known = jnp.isfinite(log_depth) & jnp.isfinite(sky)
    depth = jnp.exp(jnp.clip(jnp.where(known, log_depth, 0.0), max=jnp.log(FAR)))
    return jnp.where(known, jnp.where(sky > 0.0, FAR, depth), 0.0), known


def encode(
    config: WorldConfigLike, params: Params, video: Float[Array, "b f H W 3"]
) -> Float[Array, "b t h w c"]:
    """Encode a video in [-1, 1] to normalised latents."""
    return functional.apply(config.codec, params["codec"], video, method="encode")


def encode_held(
    config: WorldConfigLike, params: Params, picture: Float[Array, "b H W 3"]
) -> Float[Array, "b h w c"]:
    """Encode pictures in [-1, 1] as the last latent frame of a camera at rest.

    Memory is asked for tokens of later frames, so a start picture is stored as one of them, not as
    the first latent frame, which the codec makes of one frame alone.
    """
    frames = 1 + HELD_LATENTS * config.chunk.temporal_stride
    return encode(config, params, jnp.repeat(picture[:, None], frames, axis=1))[:, -1]


def decode(
    config: WorldConfigLike, params: Params, latents: Float[Array, "b t h w c"]
) -> Float[Array, "b f H W 3"]:
    """Decode normalised latents to a video in [-1, 1]; causal in time."""
    return functional.apply(config.codec, params["codec"], latents, method="decode")
