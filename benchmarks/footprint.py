"""What a node costs before it does anything: its start, and its memory while it seeds one file.

Beside `twistd -n web` on the same folder, in alternating runs on loopback. A start lasts from the
process's to the first TCP connection that is accepted; RSS is read when the seed has verified its
file of 64 MiB and both have idled for some seconds. Ratios and differences are those of medians.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Report, options
from startup import ENVIRONMENT, MAIN, TWISTD, timed

MIB = 2**20
IDLE_S = 5.0
HANGS_S = 60.0


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def started(port: int, arguments: list[str]) -> tuple[subprocess.Popen[str], float]:
    """Start `twistd -n` with a plugin; return it and how long it took to listen."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while time.perf_counter() - began < HANGS_S:
        with socket.socket() as caller:
            if not caller.connect_ex(("127.0.0.1", port)):
                return process, time.perf_counter() - began
        time.sleep(0.001)
    process.kill()
    raise SystemExit(f"{arguments} does not listen")


def rss(process: subprocess.Popen[str]) -> int:
    """Return the resident bytes of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def wait_complete(process: subprocess.Popen[str]) -> None:
    """Return when the node says that its content is complete."""
    assert process.stdout is not None
    for line in process.stdout:
        if "is complete at" in line:
            return
    raise SystemExit("the seed has ended")


def make(folder: Path) -> Path:
    """Make a file in the folder, and return its descriptor."""
    content = folder / "file.bin"
    content.write_bytes(os.urandom(64 * MIB))
    path = folder.parent / "file.desc"
    timed(["-c", MAIN, "make", str(content), "--output", str(path)])
    return path


def measure(report: Report, runs: int) -> None:
    """Start both in turns."""
    starts: dict[str, list[float]] = {"p2pdist": [], "web": []}
    memory: dict[str, list[int]] = {"p2pdist": [], "web": []}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text) / "files"
        folder.mkdir()
        descriptor = make(folder)
        for turn in range(runs + 1):  # the first warms files and caches
            for name, took in starts.items():
                port = free_port()
                if name == "web":
                    listen = f"tcp:{port}:interface=127.0.0.1"
                    arguments = ["web", "--listen", listen, "--path", str(folder)]
                else:
                    arguments = ["p2pdist", "--listen", "127.0.0.1", "--port", str(port)]
                    arguments += ["--state-dir", f"{text}/state{turn}", "--directory", str(folder)]
                    arguments += ["--descriptor", str(descriptor)]
                process, took_s = started(port, arguments)
                try:
                    if name == "p2pdist":
                        wait_complete(process)
                    time.sleep(IDLE_S if turn in (1, runs) else 0)
                    if turn:
                        took.append(took_s)
                    if turn in (1, runs):
                        memory[name].append(rss(process))
                finally:
                    process.terminate()
                    process.communicate()
    ours, web = (statistics.median(starts[name]) for name in ("p2pdist", "web"))
    report.add("twistd -n p2pdist, to listening", ours, "s")
    report.add("twistd -n web, to listening", web, "s")
    report.add("start / twistd -n web", ours / web, "ratio", at_most=1.2)
    ours, web = (statistics.median(memory[name]) / MIB for name in ("p2pdist", "web"))
    report.add("RSS seeding one file, idle", ours, "MiB")
    report.add("RSS of twistd -n web, idle", web, "MiB")
    report.add("idle RSS above twistd -n web", ours - web, "MiB", at_most=12)


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report()
    if importlib.util.find_spec("service_identity") is None:
        report.skip("start / twistd -n web", "ratio", "`twistd web` needs service_identity")
    else:
        measure(report, runs=3 if chosen.quick else 11)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
