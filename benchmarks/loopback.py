"""One seed and one downloader on loopback, as `twistd` processes, for the rows of `reliability.py`.

The seed's upload or the download is held to 100 Mbit/s, so that what an attack takes shows as lost
rate and not as a quarrel over the processor.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from main_job import MAIN, make_file
from startup import start, timed

MBIT_100 = 12_500_000
"""Bytes a second."""


class Node:
    """A running node whose log is read all the time.

    Args:
        folder: of its files and its state.
        arguments: of `twistd p2pdist`.

    Attributes:
        port: UDP and TCP.
        log_bytes: how much it has said.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(exist_ok=True)
        self.process, self.port = start(folder, *arguments)
        self.log_bytes = 0
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log_bytes += len(line)
            self._lines.append(line)

    def wait_for(self, text: str, seconds: float = 120.0) -> float:
        """Wait until it has said ``text``; return when that was seen."""
        ends, looked = time.perf_counter() + seconds, 0
        while time.perf_counter() < ends:
            while looked < len(self._lines):
                if text in self._lines[looked]:
                    return time.perf_counter()
                looked += 1
            if self.process.poll() is not None and looked == len(self._lines):
                raise SystemExit(f"a node ended before it said {text!r}")
            time.sleep(0.005)
        raise SystemExit(f"a node did not say {text!r} within {seconds} s")

    def said(self, text: str) -> bool:
        """Tell whether it has said ``text``."""
        return any(text in line for line in self._lines)

    def drain(self) -> None:
        """Read the log of an ended process to its end."""
        self._reader.join(10)

    def rss_mib(self) -> float:
        """Return its resident memory."""
        return status(self.process.pid, "VmRSS")

    def peak_mib(self) -> float:
        """Return the most it ever was."""
        return status(self.process.pid, "VmHWM")

    def descriptors(self) -> int:
        """Return how many file descriptors it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def status(process: int, name: str) -> float:
    """Return a size from a process's status, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


@contextlib.contextmanager
def seeded(base: Path, size: int) -> Iterator[tuple[Node, Path]]:
    """Make a file and a node that seeds it; yield the node and the descriptor."""
    (base / "seed").mkdir()
    make_file(base / "seed" / "model.bin", size)
    boot = Node(base / "boot")
    descriptor = base / "it.desc"
    timed(["-c", MAIN, "make", str(base / "seed" / "model.bin"), "--output", str(descriptor),
           "--node", f"127.0.0.1:{boot.port}"])  # fmt: skip
    seed = Node(base / "seed", "--descriptor", str(descriptor))
    try:
        seed.wait_for("is complete at")
        yield seed, descriptor
    finally:
        seed.stop()
        boot.stop()


def downloader(base: Path, name: str, descriptor: Path, rate: int = MBIT_100) -> Node:
    """Start a node that downloads at a limited rate."""
    return Node(base / name, "--descriptor", str(descriptor), "--download-limit", str(rate))


def waiting(base: Path, name: str) -> tuple[Node, Path]:
    """Start a node that downloads, at 100 Mbit/s, what is put into a folder; return both."""
    watched = base / f"{name}.watched"
    watched.mkdir()
    return Node(base / name, "--watch", str(watched), "--download-limit", str(MBIT_100)), watched
