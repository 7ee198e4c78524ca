"""Rows of `reliability.py` about the life of a process."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from pathlib import Path

from common import Report
from loopback import downloader, seeded
from rows import Setting, row

RATE = 4_000_000
SIZE = 64 << 20


@row("sigterm")
def sigterm(report: Report, setting: Setting) -> None:
    """SIGTERM at a random moment of a transfer."""
    times = setting.times(100, 2)
    chance = random.Random(setting.seed)
    took, wrong = [], 0
    with tempfile.TemporaryDirectory() as text:
        base = Path(text)
        with seeded(base, SIZE // 4 if setting.quick else SIZE) as (_, descriptor):
            for number in times:
                leech = downloader(base, f"leech-{number}", descriptor, RATE)
                try:
                    leech.wait_for("bytes in")
                    time.sleep(chance.uniform(0, 0.5 if setting.quick else 2.0))
                    began = time.perf_counter()
                    leech.process.send_signal(signal.SIGTERM)
                    code = leech.process.wait(60)
                    took.append(time.perf_counter() - began)
                    wrong += code != 0
                finally:
                    leech.stop()
    took.sort()
    report.add("SIGTERM in a transfer: exits with another status than 0", wrong, "", at_most=0)
    report.add("SIGTERM in a transfer: exit, median", took[len(took) // 2], "s")
    report.add("SIGTERM in a transfer: exit, p99", took[len(took) * 99 // 100], "s", at_most=2)
