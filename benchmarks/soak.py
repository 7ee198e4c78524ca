"""Twenty nodes for a long time, with churn: memory and open descriptors over time.

All are `twistd` processes on loopback. One seeds, one is the way in, two stay; of the sixteen
others one is ended every few seconds, by SIGTERM or SIGKILL, and starts again with an empty folder,
so that something is always joining, downloading and leaving. Those that stay are looked at all the
time: what is compared is the second quarter, when tables and allocator are warm, with the end.
`--minutes` says how long (10); `--plot FILE` keeps the samples as JSON lines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from attrs import define, field
from common import Report, options
from loopback import Node, seeded
from netlab import signals_as_exit

CHURNING = 16
STAYING = 2
SIZE = 8 << 20
SAMPLE_S = 2.0
FILL_S = 0.3
"""Between the starts of the first guests."""
CHURN_PER_MIN = 0.5
GROWTH_MIB = 5.0


@define
class Sample:
    """What was seen at one moment.

    Attributes:
        seconds: since the start.
        rss_mib: of each node that stays.
        handles: open descriptors of each.
    """

    seconds: float
    rss_mib: dict[str, float] = field(factory=dict)
    handles: dict[str, int] = field(factory=dict)


class Fleet:
    """The nodes.

    Args:
        base: folder for theirs.
        descriptor: of the content.
        staying: nodes that are looked at, by name.
    """

    def __init__(self, base: Path, descriptor: Path, staying: dict[str, Node]) -> None:
        self.staying = staying
        self.restarts = 0
        self.copies = 0
        self._base = base
        self._descriptor = descriptor
        self._churning: dict[int, Node] = {}

    def fill(self) -> bool:
        """Start one more of those that come and go, if one is missing; tell whether one was."""
        for number in range(CHURNING):
            if number not in self._churning:
                self._churning[number] = self.start(f"guest-{number}")
                return True
        return False

    def start(self, name: str) -> Node:
        """Start a downloader with an empty folder."""
        folder = self._base / name
        shutil.rmtree(folder, ignore_errors=True)
        return Node(folder, "--descriptor", str(self._descriptor), "--upload-limit", "4MB")

    def strike(self, chance: random.Random) -> None:
        """End one, one way or the other."""
        if not self._churning:
            return
        number = chance.choice(list(self._churning))
        node = self._churning.pop(number)
        self.copies += node.said("complete and verified after")
        self.restarts += 1
        if chance.random() < 0.5:
            node.process.kill()
            node.process.wait()
        else:
            node.stop()

    def look(self, seconds: float) -> Sample:
        """Measure those that stay."""
        sample = Sample(seconds)
        for name, node in self.staying.items():
            sample.rss_mib[name] = node.rss_mib()
            sample.handles[name] = node.descriptors()
        return sample

    def stop(self) -> None:
        """End all that this started."""
        for node in self._churning.values():
            node.stop()


def soak(base: Path, seconds: float) -> tuple[list[Sample], Fleet]:
    """Let twenty nodes live for so long; return what was seen."""
    chance = random.Random(1)
    samples: list[Sample] = []
    with seeded(base, SIZE) as (seed, descriptor), contextlib.ExitStack() as stack:
        fleet = Fleet(base, descriptor, {"seed": seed})
        stack.callback(fleet.stop)
        for number in range(STAYING):
            node = fleet.start(f"stays-{number}")
            stack.callback(node.stop)
            fleet.staying[f"stays-{number}"] = node
        while fleet.fill():  # not a part of the time: connections are no leak
            time.sleep(FILL_S)
        began, next_strike = time.monotonic(), 0.0
        while (now := time.monotonic() - began) < seconds:
            fleet.fill()
            if now >= next_strike:
                next_strike = now + 60 / (CHURN_PER_MIN * CHURNING)
                fleet.strike(chance)
            samples.append(fleet.look(time.monotonic() - began))
            time.sleep(SAMPLE_S)
    return samples, fleet


def compare(report: Report, samples: list[Sample], seconds: float) -> None:
    """Add how memory and descriptors grew from the warm time to the end."""
    warm = [s for s in samples if 0.25 <= s.seconds / seconds < 0.5] or samples[:1]
    last = [s for s in samples if s.seconds / seconds >= 0.85] or samples[-1:]
    per_hour = 3600 / (
        statistics.mean(s.seconds for s in last) - statistics.mean(s.seconds for s in warm) or 1
    )
    for name in samples[-1].rss_mib:
        before = statistics.median(s.rss_mib[name] for s in warm if name in s.rss_mib)
        after = statistics.median(s.rss_mib[name] for s in last)
        report.add(f"{name}: memory at the end", after, "MiB")
        report.add(f"{name}: memory grown", after - before, "MiB", at_most=GROWTH_MIB)
        report.add(f"{name}: memory grown, by the hour", (after - before) * per_hour, "MiB")
        handles = [statistics.median(s.handles[name] for s in part) for part in (warm, last)]
        report.add(f"{name}: descriptors grown", handles[1] - handles[0], "", at_most=4)


def main() -> None:
    """Run."""
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--minutes", type=float, default=10.0)
    more.add_argument("--plot", type=Path, help="keep the samples in this file")
    chosen = options(__doc__, more)
    seconds = 24.0 if chosen.quick else chosen.minutes * 60
    report = Report(seed=1)
    with signals_as_exit(), tempfile.TemporaryDirectory() as text:
        samples, fleet = soak(Path(text), seconds)
    if chosen.plot:
        lines = [
            json.dumps({"s": round(s.seconds, 1), "rss_mib": s.rss_mib, "fds": s.handles})
            for s in samples
        ]
        chosen.plot.write_text("\n".join(lines) + os.linesep, encoding="utf-8")
    report.add("minutes", seconds / 60, "min")
    report.add("nodes", 2 + STAYING + CHURNING, "")
    report.add("nodes ended and started again", fleet.restarts, "")
    report.add("copies that were complete when their node was ended", fleet.copies, "")
    compare(report, samples, seconds)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
