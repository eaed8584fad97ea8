"""Every figure the README claims, one after the other: `make bench`, or some: `make bench ARGS="engine bookings"`.

Those that measure the whole stack get a fresh one of their own under .kalends/bench, which is gone afterwards.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOME = Path(".kalends/bench")
ALONE = [
    ["engine.py"],
    ["growth.py"],
    ["append.py"],
    ["relay.py"],
    ["refusals.py"],
    ["lists.py"],
    ["timers.py"],
    ["webhooks.py"],
    ["calendars.py"],
    ["bookings.py", "--replicas", "1,2,4"],
]
ON_A_STACK = [
    ["rest.py"],
    ["streams.py"],
    ["availability.py"],
    ["cold.py"],
    ["robin.py"],
    ["bookings.py"],
    ["bookings.py", "--webhook"],
    ["bookings.py", "--refusals"],
]


def main() -> int:
    names = sorted({script[0].removesuffix(".py") for script in (*ALONE, *ON_A_STACK)})
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all")
    chosen = flags.parse_args().names or names
    if unknown := set(chosen) - set(names):
        flags.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = [script for script in ALONE if wanted(script, chosen) and not measure(script)]
    on_a_stack = [script for script in ON_A_STACK if wanted(script, chosen)]
    if on_a_stack:
        try:
            kalends("up")
            failed += [script for script in on_a_stack if not measure(script)]
        finally:
            kalends("down")
            shutil.rmtree(HOME)
    for script in failed:
        print(f"did not run to its end: {' '.join(script)}", file=sys.stderr)
    return 1 if failed else 0


def wanted(script: list[str], chosen: list[str]) -> bool:
    return script[0].removesuffix(".py") in chosen


def measure(script: list[str]) -> bool:
    """Runs one; False where it failed, which a goal that is missed is not."""
    print(f"\n── {' '.join(script)}", flush=True)
    env = os.environ | {"KALENDS_HOME": str(HOME)}
    return subprocess.run([sys.executable, str(HERE / script[0]), *script[1:]], env=env, check=False).returncode == 0


def kalends(command: str) -> None:
    subprocess.run([sys.executable, "-m", "kalends_cli", command, "--data-dir", str(HOME)], check=True)


if __name__ == "__main__":
    sys.exit(main())
