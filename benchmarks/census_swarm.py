"""A real swarm of processes on loopback, and ``p2pdist wait`` on it; for ``census.py``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import common

ROOT: Final = Path(__file__).resolve().parents[1]
TWISTD: Final = "from twisted.scripts.twistd import run; run()"
COMMAND: Final = "from p2pdist.faces.cli.main import main; main()"
ENVIRONMENT: Final = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
PATIENCE_S: Final = 120.0
STRAGGLER: Final = "the-straggler"


class Member:
    """One ``twistd p2pdist`` process, and when it logged what.

    Attributes:
        done_at: when its copy was complete, in seconds of ``time.monotonic``.
    """

    def __init__(self, folder: Path, name: str, *options: str) -> None:
        self.state = str(folder / f"{name}.state")
        directory = folder / name
        directory.mkdir(exist_ok=True)
        self.port = 0
        self.done_at = 0.0
        self.listening = threading.Event()
        self.done = threading.Event()
        argv = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "p2pdist", "--name", name]
        argv += ["--listen", "127.0.0.1", "--port", "0", "--directory", str(directory)]
        argv += ["--state-dir", self.state, *options]
        self.process = subprocess.Popen(
            argv, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            port = re.search(r"UDP and TCP port (\d+)", line)
            if port is not None:
                self.port = int(port[1])
                self.listening.set()
            if "complete and verified" in line or "is complete at" in line:
                self.done_at = time.monotonic()
                self.done.set()

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(PATIENCE_S)


def command(*arguments: str) -> subprocess.Popen[str]:
    """Start ``p2pdist``."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def swarm(folder: Path, count: int, size: int) -> Iterator[tuple[list[Member], tuple[str, ...]]]:
    """Run a seed and ``count - 1`` downloaders; all are stopped in the end.

    Yields the members, more may be added, and the options that make one more.
    """
    seed_folder = folder / "seed"
    seed_folder.mkdir(parents=True)
    original = seed_folder / "model.bin"
    original.write_bytes(os.urandom(size))
    descriptor = folder / "model.desc"
    made = command("make", str(original), "--output", str(descriptor))
    if made.wait(PATIENCE_S):
        raise SystemExit("p2pdist make failed")
    members = [Member(folder, "seed", "--descriptor", str(descriptor))]
    try:
        members[0].listening.wait(PATIENCE_S)
        members[0].done.wait(PATIENCE_S)
        options = ("--descriptor", str(descriptor), "--node", f"127.0.0.1:{members[0].port}")
        members += [Member(folder, f"host-{n:02}", *options) for n in range(1, count)]
        yield members, options
    finally:
        for member in members:
            member.stop()


def measure(report: common.Report, folder: Path, count: int, size: int) -> None:
    """Add the figures of one swarm."""
    name = f"wait --nodes {count}, as many processes"
    with swarm(folder, count, size) as (members, options):
        state = ("--state-dir", members[0].state)
        code = command("wait", "--nodes", str(count), *state).wait(PATIENCE_S)
        ended = time.monotonic()
        last = max(member.done_at for member in members)
        everybody = all(member.done.is_set() for member in members)
        late = ended - last if code == 0 and everybody else float("inf")
        report.add(f"{name}: ends after the last completion", late, "s", at_most=2)
        members.append(Member(folder, STRAGGLER, *options, "--download-limit", "16KiB"))
        members[-1].listening.wait(PATIENCE_S)
        waiting = command("wait", "--nodes", str(count + 2), "--timeout", "8", *state)
        said = waiting.communicate(timeout=PATIENCE_S)[0]
        named = STRAGGLER in said and "1 that nobody has heard of" in said and "host-" not in said
        good = waiting.returncode == 6 and named
        report.add(f"{name}: names stragglers at timeout, exit code 6", good, "", at_least=1)
