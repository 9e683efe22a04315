"""What memory shows to some cameras, and the condition that the denoiser is given of it.

Read next: `mirage_jax/memory/read.py`, `mirage_jax/models/condition.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mirage_jax.geometry import camera as camera_lib
from mirage_jax.geometry import projection
from mirage_jax.memory import features as feature_lib
from mirage_jax.memory import fill, read, state
from mirage_jax.models import condition as condition_lib
from mirage_jax.models import functional
from mirage_jax.world_model import placing
from mirage_jax.world_model.parts import FAR, Params, WorldConfigLike
from mirage_jax.world_model.shares import read_all


class Observation(NamedTuple):
    """What the memory shows to some cameras.

    Attributes:
        read: the raw read, leading axes [b, t].
        filled: [b, t, h, w, c] the raw tokens with unseen cells filled from seen ones, or left at
            zero where the condition wants holes so.
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


def observe(
    config: WorldConfigLike,
    params: Params,
    memory: state.LatentMemory,
    cameras: camera_lib.Camera,
    grid_hw: tuple[int, int],
    reference: camera_lib.Camera,
    score: Float[Array, "t h w s"] | None = None,
    kept: read.MemoryRead | None = None,
) -> Observation:
    """Read the memories at some cameras and build the denoiser's condition from what was found.

    Args:
        config: see `WorldConfigLike`.
        params: parameters of the models.
        memory: stacked memories [b].
        cameras: [b, t] with grid intrinsics, target frames first, then preceding ones.
        grid_hw: (h, w) of the latent grid.
        reference: [b] the camera rays are expressed in: that of the chunk's first target frame.
        score: constant channels from `white_score`, where the condition has them.
        kept: what the last cameras are shown, such as what memory showed them earlier; they are
            then not read. May be all of them.

    Returns:
        The observation of all t frames.
    """
    count = cameras.cam_to_world.shape[1] - (0 if kept is None else kept.depth.shape[1])
    parts = [] if kept is None else [kept]
    shown = jax.tree.map(lambda leaf: leaf[:, :count], cameras)
    if count:
        parts.insert(0, read_all(memory, shown, grid_hw, config.memory))
    found = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)
    base = filled = found.tokens
    if config.condition.holes == "filled":
        base = filled = fill.fill_holes(found.tokens, found.visibility)
    if config.learned_read is not None:
        features = feature_lib.read_features(found)
        if config.learned_read.placed:
            rows = placing.read_rows(config, memory, shown, found)
            base = placing.place(config, params, found, filled, features, rows)
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
        score=score,
    )
    return Observation(read=found, filled=filled, base=base, rays=rays, condition=condition)


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
