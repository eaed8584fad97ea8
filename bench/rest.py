"""Memory of the whole stack at rest, one replica each, as PSS: pages shared by several count once. Goal 600 MB.

make up && .venv/bin/python bench/rest.py
"""

import argparse
import sys
import time

from _machine import machine
from _stack import FOLDER

from kalends_cli.home import Home
from kalends_cli.memory import pss

GOAL = 600


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--settle", type=float, default=5, help="seconds of rest before the look")
    args = flags.parse_args()
    home = Home(FOLDER)
    supervisor, state = home.supervisor_pid(), home.state()
    if supervisor is None or state is None or (total := pss(supervisor)) is None:
        print("nothing runs; `make up` starts it (and only Linux tells PSS)", file=sys.stderr)
        return 1
    time.sleep(args.settle)
    print(machine())
    sizes = {name: pss(unit["pid"]) or 0 for name, unit in state["units"].items()}
    total = pss(supervisor) or 0
    sizes["supervisor"] = total - sum(sizes.values())
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{name:<20}{size / 1e6:8.1f} MB")
    print(
        f"{'the whole stack':<20}{total / 1e6:8.1f} MB   goal {GOAL}: {'held' if total <= GOAL * 1e6 else 'NOT HELD'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
