"""How exactly `--upload-limit` and `--download-limit` hold: real processes on loopback.

One process seeds, another one fetches, one content or four at once, so over one connection or four.
One of the two is limited, to 1, 10 and 100 MB/s (of 10**6 bytes) one after the other, changed while
it runs. After a second to settle, what the kernel says its TCP connections moved in 10 s (3 with
`--quick`) is compared with the limit; what a downloader has received and not read does not count,
for a limit that is lowered finds some megabytes there. The bytes of TCP headers are in neither.
Right before, for a second, both run without a limit: where the machine has not 1.5 times the limit
to give, the row is skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Report, options
from main_job import MAIN, make_file
from startup import ENVIRONMENT, timed

RATES = (1, 10, 100)
SETTLE_S = 1.0
NODE = str(Path(__file__).with_name("limited_node.py"))


class Node:
    """One process; see `limited_node.py`."""

    def __init__(self, folder: Path, role: str, node: str, files: list[str]) -> None:
        folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, NODE, str(folder), role, node, *files],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port: int = self._read()["port"]
        for _ in files if role == "seed" else ():
            self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def say(self, *words: object) -> dict[str, Any]:
        """Send a command and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End it: it stops when its standard input does."""
        self._process.communicate()


def measure(node: Node, side: int, window_s: float) -> tuple[float, float]:
    """Return bytes per second over the window, and the slowest connection's part of a fair one."""
    first = node.say("read")
    time.sleep(window_s)
    last = node.say("read")
    seconds = last["seconds"] - first["seconds"]
    each = [
        (last["moved"][key][side] - before[side]) / seconds
        for key, before in first["moved"].items()
        if key in last["moved"]
    ]
    return sum(each), min(each) * len(each) / sum(each)


def run(report: Report, base: Path, contents: list[str], window_s: float) -> None:
    """Limit first the seed's upload, then a downloader's download."""
    count = len(contents)
    seed = Node(base / "seed", "seed", "-", contents)
    try:
        for side, direction in enumerate(("upload", "download")):
            leech = Node(base / f"{direction}-{count}", "get", f"127.0.0.1:{seed.port}", contents)
            limited = seed if direction == "upload" else leech
            try:
                for rate in RATES:
                    bytes_per_s = rate * 10**6
                    label = f"{direction} at {rate} MB/s, {count} connection{'s' * (count > 1)}"
                    while len(limited.say("read")["moved"]) < count:
                        time.sleep(0.05)
                    if rate == max(RATES):
                        limited.say("limits", 0, 0)
                        free, _ = measure(limited, side, SETTLE_S)
                        if free < 1.5 * bytes_per_s:
                            report.skip(f"{label}: off by", "%", f"only {free / 1e6:.0f} MB/s here")
                            continue
                    limits = (bytes_per_s, 0) if direction == "upload" else (0, bytes_per_s)
                    limited.say("limits", *limits)
                    time.sleep(SETTLE_S)
                    moved, fair = measure(limited, side, window_s)
                    error = abs(moved / bytes_per_s - 1)
                    report.add(f"{label}: moved", moved / 1e6, "MB/s")
                    report.add(f"{label}: off by", 100 * error, "%", at_most=5)
                    if count > 1:
                        report.add(f"{label}: slowest / fair part", fair, "ratio", at_least=0.9)
            finally:
                limited.say("limits", 0, 0)
                leech.stop()
    finally:
        seed.stop()


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report()
    window_s = 3.0 if chosen.quick else 10.0
    total = int(sum(RATES) * 1.2 * 10**6 * (window_s + SETTLE_S)) + 600 * 10**6
    with tempfile.TemporaryDirectory() as text:
        base = Path(text)
        (base / "seed").mkdir()
        for count in (4,) if chosen.quick else (1, 4):
            files = []
            for number in range(count):
                path = base / "seed" / f"{count}-{number}.bin"
                make_file(path, total // count)
                files.append(str(base / f"{path.name}.desc"))
                timed(["-c", MAIN, "make", str(path), "--output", files[-1]])
            run(report, base, files, window_s)
            for path in base.rglob("*.bin"):
                path.unlink()
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
