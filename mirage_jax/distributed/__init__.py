"""Devices: their mesh, which axis of an array lies along which of its axes, and what that costs.

A run's mesh has four axes, always: `data` and `fsdp` divide the batch, `fsdp` and `context` the
parameters, `context` the tokens of a sequence, `tensor` heads and hidden channels. Modules name
the logical axes of their arrays; one table (`axes.py`) says where those go. Nothing here knows the
models.

Read next: `mesh.py`, `axes.py`, `constrain.py`.
"""
