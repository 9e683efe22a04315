"""Whether a run fits its devices and how fast it can be at most, before it is paid for.

The real training step and the real chunk of a rollout are compiled ahead of time for devices that
need not be there; bytes and collectives are those of the compiled programs, operations are counted
from the config.

Read next: `steps.py` (what is compiled), `operations.py`, `report.py`.
"""
