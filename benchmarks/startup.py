"""How long `p2pdist get` of a small file takes from a running seed on loopback.

The time is split: the interpreter with p2pdist's imports, and what comes after "the interpreter is
up", which is what the user waits for the network. Beside it a bare `twistd` from start to stop.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Report, options

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
GET = """
import sys, time
began = time.perf_counter()
from p2pdist.faces.cli.main import main
try:
    main()
finally:
    print(time.perf_counter() - began, file=sys.stderr)
"""
MAIN = "from p2pdist.faces.cli.main import main; main()"
TWISTD = "from twisted.scripts.twistd import run; run()"
BARE = """
from twisted.application.service import Application
from twisted.internet import reactor
application = Application("bare")
reactor.callWhenRunning(reactor.stop)
"""


def timed(arguments: list[str]) -> tuple[float, str]:
    """Run Python; return wall seconds and what went to standard error."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began, done.stderr


def start(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """Start a node; return it and its port."""
    node = ["-n", "--pidfile=", "p2pdist", "--listen", "127.0.0.1", "--port", "0"]
    folders = ["--state-dir", str(folder / "state"), "--directory", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", TWISTD, *node, *folders, *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "TCP port" in line:
            return process, int(line.rsplit(" ", 1)[1])
    raise SystemExit("the node did not start")


def measure(report: Report, runs: int) -> None:
    """Measure everything."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        seed_folder = folder / "seed"
        seed_folder.mkdir()
        (seed_folder / "small.bin").write_bytes(os.urandom(100_000))
        tac = folder / "bare.tac"
        tac.write_text(BARE)
        first = folder / "first"
        first.mkdir()
        bootstrap, port = start(first)
        descriptor = folder / "it.desc"
        timed(["-c", MAIN, "make", str(seed_folder / "small.bin"), "--output", str(descriptor),
               "--node", f"127.0.0.1:{port}"])  # fmt: skip
        seed, _ = start(seed_folder, "--descriptor", str(descriptor))
        assert seed.stdout is not None
        for line in seed.stdout:
            if "is complete at" in line:
                break
        try:
            walls, inner, bare, imports = [], [], [], []
            for number in range(runs):
                target = folder / f"get-{number}"
                target.mkdir()
                wall, errors = timed(["-c", GET, "get", str(descriptor), "--directory", str(target),
                                      "--listen", "127.0.0.1", "--timeout", "20"])  # fmt: skip
                walls.append(wall)
                inner.append(float(errors.split()[-1]))
                bare.append(timed(["-c", TWISTD, "-n", "--pidfile=", "-y", str(tac)])[0])
                imports.append(timed(["-c", "import p2pdist.faces.cli.get"])[0])
        finally:
            for process in (seed, bootstrap):
                process.terminate()
                process.wait()
    median = statistics.median
    report.add("get of a 100 kB file, interpreter up to end", median(inner), "s", at_most=1.0)
    report.add("get of a 100 kB file, whole process", median(walls), "s")
    report.add("import of p2pdist get, whole process", median(imports), "s")
    report.add("bare twistd, start and stop, whole process", median(bare), "s")
    report.add("get / bare twistd", median(walls) / median(bare), "ratio")


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report()
    measure(report, runs=3 if chosen.quick else 11)
    report.print(as_json=chosen.json)


if __name__ == "__main__":
    main()
