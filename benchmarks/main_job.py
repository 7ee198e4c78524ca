"""The main job at full size: one seed, a bootstrap node that is no member, five downloaders.

All are real `twistd` processes on loopback. A file of 1 GiB and a folder of 1,000 files (nested,
one empty, one with a non-ASCII name); every copy is compared byte by byte. With `--quick` 64 MiB
and 200 files.
"""

from __future__ import annotations

import filecmp
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Report, options
from startup import start, timed

MAIN = "from p2pdist.faces.cli.main import main; main()"
DOWNLOADERS = 5


def make_file(path: Path, size: int) -> None:
    """Write random bytes."""
    with path.open("wb") as file:
        for begin in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - begin)))


def make_folder(top: Path, count: int) -> None:
    """Write ``count`` files of up to 200 kB: nested, one empty, one with a non-ASCII name."""
    chance = random.Random(1)
    for number in range(count - 2):
        path = top / f"a{number % 7}" / f"b{number % 11}" / f"c{number % 3}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(200_000)))
    (top / "empty").touch()
    (top / "größe-数.txt").write_text("non-ASCII name")


def same(one: Path, two: Path) -> bool:
    """Compare files or folders byte by byte."""
    if one.is_file():
        return filecmp.cmp(one, two, shallow=False)
    names = sorted(path.relative_to(one) for path in one.rglob("*"))
    if names != sorted(path.relative_to(two) for path in two.rglob("*")):
        return False
    return all(
        filecmp.cmp(one / name, two / name, shallow=False)
        for name in names
        if (one / name).is_file()
    )


def distribute(report: Report, base: Path, content: Path, label: str) -> None:
    """Distribute ``content`` and add its figures."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for name in ("bootstrap", *(f"leech-{n}" for n in range(DOWNLOADERS))):
            (base / name).mkdir()
        bootstrap, port = start(base / "bootstrap")
        processes.append(bootstrap)
        descriptor = base / "it.desc"
        timed(["-c", MAIN, "make", str(content), "--output", str(descriptor),
               "--node", f"127.0.0.1:{port}"])  # fmt: skip
        seed, _ = start(content.parent, "--descriptor", str(descriptor))
        processes.append(seed)
        wait_for(seed, "is complete at")
        began = time.perf_counter()
        leeches = [
            start(base / f"leech-{number}", "--descriptor", str(descriptor))[0]
            for number in range(DOWNLOADERS)
        ]
        processes += leeches
        for leech in leeches:
            wait_for(leech, "complete and verified after")
        seconds = time.perf_counter() - began
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate()
    equal = sum(
        same(content, base / f"leech-{number}" / content.name) for number in range(DOWNLOADERS)
    )
    size = sum(p.stat().st_size for p in [content, *content.rglob("*")] if p.is_file())
    report.add(f"{label}: copies that differ, of {DOWNLOADERS}", DOWNLOADERS - equal, "", at_most=0)
    report.add(f"{label}: size", size / 2**20, "MiB")
    report.add(f"{label}: last of {DOWNLOADERS} copies after", seconds, "s")
    report.add(f"{label}: all copies together", DOWNLOADERS * size / 2**20 / seconds, "MiB/s")


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read a node's log up to a line with ``text``."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise SystemExit(f"a node ended before it said {text!r}")


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report(seed=1)
    with tempfile.TemporaryDirectory() as text:
        one = Path(text) / "file"
        (one / "seed").mkdir(parents=True)
        make_file(one / "seed" / "model.bin", 64 << 20 if chosen.quick else 1 << 30)
        distribute(report, one, one / "seed" / "model.bin", "file")
        two = Path(text) / "folder"
        (two / "seed" / "dataset").mkdir(parents=True)
        make_folder(two / "seed" / "dataset", 200 if chosen.quick else 1000)
        distribute(report, two, two / "seed" / "dataset", "folder")
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
