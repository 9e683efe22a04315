"""Exit codes of a run that schedulers act on; imports nothing, so that launchers may read it.

A launcher starts the same command again on `PREEMPTED` and on nothing else (`launch/local.py`
does); the run goes on from the step it was saved at.
"""

# EX_TEMPFAIL of sysexits.h: saved because the machine is wanted back; start it again.
PREEMPTED = 75
# The run could not go on, e.g. a checkpoint could not be written.
FAILED = 1
# What was asked for is wrong: a flag, a config, a file.
MISTAKE = 2
# Too many updates in a row were not finite; the same command would end the same way.
NOT_FINITE = 3
# What shells report of a program that ended by Ctrl-C; it was saved.
INTERRUPTED = 130
