"""Many Hypothesis cases on every parser: the long form of p2pdist/test/test_fuzz.py.

    python tools/fuzz/cases.py [--cases 200000] [TARGET ...]

Prints a line for each target; the first input that breaks one ends the run with code 1. Cases of
one target are drawn in runs of RUN, each with a seed of its own, which the line names.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hypothesis import HealthCheck, Phase, given, seed, settings

from p2pdist.test.fuzztargets import TARGETS
from p2pdist.test.test_fuzz import inputs

RUN = 20_000
"""Cases drawn with one seed: Hypothesis remembers what it drew, which costs memory."""


def cases(name: str, count: int, number: int) -> int:
    """Try ``count`` cases on a target; return how many were drawn."""
    target, drawn = TARGETS[name], 0

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(target))
    def check(data: bytes) -> None:
        nonlocal drawn
        drawn += 1
        target.run(data)

    check()
    return drawn


def main() -> int:
    """Run the targets asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("targets", nargs="*", default=sorted(TARGETS))
    asked = parser.parse_args()
    for name in asked.targets:
        began, drawn, number = time.monotonic(), 0, 0
        while drawn < asked.cases:
            drawn += cases(name, min(RUN, asked.cases - drawn), number)
            number += 1
        print(
            f"{name:12}{drawn:9} cases, 0 uncaught, {time.monotonic() - began:6.0f} s", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
