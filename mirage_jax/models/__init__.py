"""Neural networks of mirage_jax, declared as Flax NNX modules and used as pure functions.

Nothing outside this package sees a module: every model is a frozen config dataclass with a
`build(rngs)` method, and its parameters are a plain nested dict of arrays. Importing this package
loads no submodule, so that `--help` stays fast.

Read next: `functional.py` (the one adapter), then `denoiser.py`.
"""
