#!/usr/bin/env bash
# Trains on the nodes of a SLURM cluster, one process a node with all of its GPUs.
#
#   sbatch --nodes 8 --gpus-per-node 8 launch/slurm.sh -- \
#     mirage train --config configs/wan5b.py:paper --stage branch --mesh fsdp=-1 \
#     --weights worlds/wan5b --workdir runs/wan5b
#   launch/slurm.sh --dry-run -- mirage train ...       # prints what would be executed
#
# Two minutes before the time limit, and when nodes are wanted back, SLURM sends SIGTERM; the command
# saves and ends with the exit code that says so, and the job is put back into the queue under the
# same number. Flags given to sbatch go before those below. --workdir must be on shared storage.
#SBATCH --job-name=mirage
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -u

PREEMPTED=75 # mirage_jax/distributed/exit_codes.py

DRY_RUN=
if [ "${1:-}" = "--dry-run" ]; then
  DRY_RUN=1
  shift
fi
if [ "${1:-}" != "--" ] || [ $# -lt 2 ]; then
  echo "launch/slurm.sh: got '$*', expected [--dry-run] -- mirage train ..." >&2
  exit 2
fi
shift

if [ -n "$DRY_RUN" ]; then
  printf '%q ' srun "$@"
  printf '\n# on exit code %s: scontrol requeue JOB\n' "$PREEMPTED"
  exit 0
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "launch/slurm.sh: runs inside a job; submit it with sbatch, or pass --dry-run first" >&2
  exit 2
fi

# Without --kill-on-bad-exit: who has saved must not end those that are still saving.
srun "$@"
code=$?
if [ "$code" -eq "$PREEMPTED" ]; then
  echo "launch: saved and preempted; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
