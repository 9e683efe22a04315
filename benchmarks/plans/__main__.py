"""`python -m benchmarks.plans`: what training and memory take on hardware that is not here.

Every plan is one `mirage plan --json` in a process of its own: it compiles the real programs for
the target, which takes minutes. Finished plans are kept and are not made again; an interrupted run
goes on where it was. Those that do not end within the limit are estimated instead, and say so.

    python -m benchmarks.plans                    # make what is missing, print the tables
    python -m benchmarks.plans --only v5p:4x4x4   # of these targets only
    python -m benchmarks.plans --part memory      # or training, scaling
    python -m benchmarks.plans --table            # print the tables of what is there

Compiling needs `pip install "mirage-jax[tpu]"` and `"mirage-jax[cuda]"`. Nothing is run.
"""

import argparse

from benchmarks.plans import kept, memory, scaling, training

PARTS = {"memory": memory, "training": training, "scaling": scaling}


def main() -> None:
    """Parse the command line, make what is missing, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--part", choices=PARTS, help="this table only")
    parser.add_argument("--only", default="", help="targets that begin with this")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds a plan may take")
    parser.add_argument("--table", action="store_true", help="make nothing")
    arguments = parser.parse_args()
    parts = [arguments.part] if arguments.part else list(PARTS)
    plans = kept.load()
    every = list(dict.fromkeys(line for part in PARTS.values() for line in part.commands()))
    for line in dict.fromkeys(line for name in parts for line in PARTS[name].commands()):
        wanted = f"--target {arguments.only}" in line and line not in plans
        if wanted and not arguments.table:
            print(f"mirage plan {line}", flush=True)
            plans[line] = kept.make(line, arguments.limit)
            kept.save(plans, every)
    for name in parts:
        print(f"\n{PARTS[name].table(plans)}")


if __name__ == "__main__":
    main()
