"""`p2pdist make` and `p2pdist verify` of a file beside `b3sum` (Debian package), as many threads.

A random file in the page cache, alternating runs of whole processes. Starting Python takes a while
that `b3sum` does not need; a file of 12 GiB makes it small, and it is a figure of its own. Threads
are those that p2pdist uses on this machine.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Report, options
from startup import MAIN, timed

from p2pdist import limits

MIB = 2**20


def fill(path: Path, size: int) -> None:
    """Write a random file, and read it once."""
    with path.open("wb") as file:
        for _ in range(size // (64 * MIB)):
            file.write(os.urandom(64 * MIB))
    with path.open("rb", buffering=0) as file:
        while file.read(16 * MIB):
            pass


def wall(arguments: list[str]) -> float:
    """Run a program; return its seconds."""
    began = time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(report: Report, size: int, rounds: int) -> None:
    """Hash in turns."""
    threads = min(limits.DISK_THREADS, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as text:
        path, descriptor = Path(text) / "file.bin", Path(text) / "file.desc"
        fill(path, size)
        took: dict[str, list[float]] = {"make": [], "verify": [], "b3sum": [], "start": []}
        make = ["-c", MAIN, "make", str(path), "--output", str(descriptor), "--force"]
        verify = ["-c", MAIN, "verify", str(descriptor), "--path", str(path)]
        for _ in range(rounds):
            took["b3sum"].append(wall(["b3sum", "--num-threads", str(threads), str(path)]))
            took["make"].append(timed(make)[0])
            took["verify"].append(timed(verify)[0])
            took["start"].append(timed(["-c", MAIN, "verify", "--help"])[0])
    median = {name: statistics.median(values) for name, values in took.items()}
    for name in ("b3sum", "make", "verify"):
        report.add(name, size / MIB / median[name], "MiB/s")
    report.add("start of p2pdist", median["start"], "s")
    for name in ("make", "verify"):
        ratios = [b / ours for b, ours in zip(took["b3sum"], took[name], strict=True)]
        report.add(f"{name} / b3sum with {threads} threads", statistics.median(ratios), "ratio",
                   at_least=0.8)  # fmt: skip


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report()
    if shutil.which("b3sum") is None:
        report.skip("make / b3sum", "ratio", "there is no b3sum")
    else:
        measure(report, (512 if chosen.quick else 12288) * MIB, rounds=3 if chosen.quick else 5)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
