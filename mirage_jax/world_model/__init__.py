"""One chunk's arithmetic, shared by training and rollout.

So training sees exactly what rollout sees.

The parts of a world model (codec, depth head, learned read, denoiser) and the memory know nothing
of each other; this package joins them: memory + cameras -> `observe` -> condition ->
`predict_velocity` / `sample_chunk` -> latents -> `latent_depth` -> `remember`. Every function is
pure, batched over a leading axis b, and safe under jit and grad.

Conventions: cameras given here carry intrinsics of the *latent grid* (see `grid_camera`). Frames
are ordered target first, preceding after, as the denoiser wants them; reference frames, which
memory is not read for, come before both. Parameters are a plain dict with the keys "codec",
"denoiser" and, where there is one, "depth_head" and "learned_read". Latents are the codec's
normalised ones.
Read next: `parts.py`, `look.py`, `denoise.py`, `remember.py`, `shares.py` (memories over devices);
`mirage_jax/rollout/chunk.py` (one chunk of a rollout), `mirage_jax/train/objective.py` (its loss).
"""

from mirage_jax.world_model.denoise import (
    ChunkInputs,
    chunk_inputs,
    predict_velocity,
    sample_chunk,
)
from mirage_jax.world_model.look import Observation, latent_depth, observe
from mirage_jax.world_model.parts import (
    FAR,
    HELD_LATENTS,
    Params,
    WorldConfigLike,
    decode,
    encode,
    encode_held,
    white_score,
)
from mirage_jax.world_model.placing import place, read_rows
from mirage_jax.world_model.remember import (
    empty_memory,
    grid_camera,
    grid_depth,
    remember,
    sky_cells,
)

__all__ = [
    "FAR",
    "HELD_LATENTS",
    "ChunkInputs",
    "Observation",
    "Params",
    "WorldConfigLike",
    "chunk_inputs",
    "decode",
    "empty_memory",
    "encode",
    "encode_held",
    "grid_camera",
    "grid_depth",
    "latent_depth",
    "observe",
    "place",
    "predict_velocity",
    "read_rows",
    "remember",
    "sample_chunk",
    "sky_cells",
    "white_score",
]
