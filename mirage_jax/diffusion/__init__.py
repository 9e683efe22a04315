"""Flow matching and the solvers that run it backwards.

Nothing here knows about models or memory: a model is any ``velocity_fn(x, sigma, timestep)``.

Read next: `mirage_jax/diffusion/flow.py` for training, `mirage_jax/diffusion/solvers.py` for
sampling.
"""
