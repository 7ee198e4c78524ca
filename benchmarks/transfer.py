"""One transfer: one seeder, one downloader, one random file, on loopback, beside other clients.

p2pdist, libtorrent (a v1 and a v2 torrent, TCP) and aria2 take turns, and with them
the least any verified copy costs (sendfile -> TCP -> BLAKE3 -> write, in threads), on tmpfs and on
disk. Each turn has processes of its own. The clock runs from the moment an idle downloader is told
to begin (aria2: from its start) until the copy is complete, verified and on disk (fsync included).
CPU counts both processes from then to then; `transfer_ends.py` is the processes. Memory is touched
before the first turn. Ratios are taken within a round, and the median of the rounds is shown.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen
from common import Report, options

MIB = 2**20
GIB = 2**30
NAME = "model.bin"
ENDS = Path(__file__).with_name("transfer_ends.py")
MAIN = "from p2pdist.faces.cli.main import main; main()"
HANGS_S = 300
TICK = os.sysconf("SC_CLK_TCK")
LIMIT = "verified copy"
OURS = "p2pdist"
V1, V2, ARIA = "libtorrent v1", "libtorrent v2", "aria2"


@frozen
class Run:
    """What one transfer took.

    Attributes:
        wall_s: from the order to the end.
        down_s: CPU seconds of the downloader.
        up_s: CPU seconds of the seeder.
        above_idle: how far the downloader's memory rose above what it had idle, bytes.
        peak: the downloader's highest RSS, bytes.
    """

    wall_s: float
    down_s: float
    up_s: float
    above_idle: int
    peak: int


class Process:
    """A seeder or a downloader."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.idle = 0
        self._before = 0.0
        self._deadline = threading.Timer(HANGS_S, self._process.kill)
        self._deadline.daemon = True
        self._deadline.start()

    def wait_for(self, word: str) -> None:
        """Wait until it has said ``word``."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == word:
                return
        raise SystemExit(f"a process ended before it was {word}: {self._process.args!r}")

    def mark(self) -> None:
        """Count from now on."""
        proc = Path(f"/proc/{self._process.pid}")
        (proc / "clear_refs").write_text("5")  # the peak begins anew
        self.idle = self._memory("VmRSS")
        self._before = self._cpu_s()

    def begin(self) -> None:
        """Give the order."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def cpu_s(self) -> float:
        """Return the CPU seconds since :meth:`mark`."""
        return self._cpu_s() - self._before

    def peak(self) -> int:
        """Return the highest RSS since then, bytes."""
        return self._memory("VmHWM")

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def _memory(self, name: str) -> int:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise SystemExit(f"no {name}")

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()

    def end(self) -> None:
        """Let it go."""
        self._deadline.cancel()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def child(**order: Any) -> Process:
    """Start one of ``transfer_ends.py``."""
    return Process([sys.executable, str(ENDS), json.dumps(order)])


def free_port() -> int:
    """Return a port that is free on TCP, and most likely on UDP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Tracker:
    """The HTTP tracker aria2 needs: it names one peer to everybody."""

    def __init__(self) -> None:
        self.peer = 0
        tracker = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                peer = socket.inet_aton("127.0.0.1") + struct.pack(">H", tracker.peer)
                body = b"d8:intervali900e5:peers6:" + peer + b"e"
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(OSError):  # gone already
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}/announce"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


class Course:
    """One file on one medium, and everybody who copies it there.

    Args:
        base: an empty folder on the medium.
        size: of the file, bytes.
        tracker: for aria2.
    """

    def __init__(self, base: Path, size: int, tracker: Tracker) -> None:
        self.base = base
        self.size = size
        self._tracker = tracker
        self._folder = base / "seed"
        self._folder.mkdir()
        with (self._folder / NAME).open("wb") as file:
            for begin in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size - begin)))

    def make_torrents(self) -> None:
        """Write a v1 and a v2 torrent of the file, pieces as long as libtorrent likes."""
        import libtorrent as lt

        warnings.simplefilter("ignore", DeprecationWarning)  # its newer way is too new
        files = lt.file_storage()
        files.add_file(NAME, self.size)
        for label, flag in (("v1", "v1_only"), ("v2", "v2_only")):
            creator = lt.create_torrent(files, 0, getattr(lt.create_torrent, flag))
            creator.add_tracker(self._tracker.url)
            lt.set_piece_hashes(creator, str(self._folder))
            (self.base / f"{label}.torrent").write_bytes(lt.bencode(creator.generate()))

    def run(self, who: str) -> Run:
        """Let one of them copy the file, and remove the copy."""
        target = self.base / "copy"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        runs: dict[str, Callable[[Path], Run]] = {
            OURS: self._ours,
            V1: lambda target: self._libtorrent(target, "v1"),
            V2: lambda target: self._libtorrent(target, "v2"),
            ARIA: self._aria,
            LIMIT: self._copy,
        }
        os.sync()
        run = runs[who](target)
        if (target / NAME).stat().st_size != self.size:
            raise SystemExit(f"{who} made no copy")
        shutil.rmtree(target)
        return run

    def _ours(self, target: Path) -> Run:
        port = free_port()
        descriptor = self.base / f"{port}.desc"
        subprocess.run(
            [sys.executable, "-c", MAIN, "make", str(self._folder / NAME), "--node",
             f"127.0.0.1:{port}", "--output", str(descriptor)],
            env={**os.environ, "PYTHONPATH": str(ENDS.parents[1])},
            check=True, capture_output=True,
        )  # fmt: skip
        order = {"who": "p2pdist", "descriptor": str(descriptor)}
        return self._timed(
            lambda: child(**order, seed=True, port=port, folder=str(self._folder)),
            lambda: child(**order, seed=False, port=0, folder=str(target)),
        )

    def _libtorrent(self, target: Path, label: str) -> Run:
        port = free_port()
        order = {"who": "libtorrent", "torrent": str(self.base / f"{label}.torrent"), "name": NAME}
        return self._timed(
            lambda: child(**order, seed=True, port=port, folder=str(self._folder)),
            lambda: child(**order, seed=False, port=free_port(), peer=port, folder=str(target)),
        )

    def _copy(self, target: Path) -> Run:
        port = free_port()
        order = {"who": "copy", "name": NAME, "size": self.size}
        return self._timed(
            lambda: child(**order, seed=True, port=port, folder=str(self._folder)),
            lambda: child(**order, seed=False, peer=port, folder=str(target)),
        )

    def _timed(self, seeder: Callable[[], Process], downloader: Callable[[], Process]) -> Run:
        seed = seeder()
        leech = None
        try:
            seed.wait_for("ready")
            leech = downloader()
            leech.wait_for("ready")
            seed.mark()
            leech.mark()
            began = time.perf_counter()
            leech.begin()
            leech.wait_for("done")
            wall_s = time.perf_counter() - began
            peak = leech.peak()
            return Run(wall_s, leech.cpu_s(), seed.cpu_s(), peak - leech.idle, peak)
        finally:
            if leech is not None:
                leech.end()
            seed.end()

    def _aria(self, target: Path) -> Run:
        """Time aria2 itself: its downloader ends when the copy is complete and verified."""
        port = free_port()
        self._tracker.peer = port
        common = [
            "aria2c", "--no-conf", "--enable-dht=false", "--enable-dht6=false",
            "--bt-enable-lpd=false", "--file-allocation=none", "--summary-interval=0",
            "--console-log-level=warn", "--quiet", "--interface=127.0.0.1",
            str(self.base / "v1.torrent"),
        ]  # fmt: skip
        seeding = ["--bt-seed-unverified=true", "--check-integrity=true", "--seed-ratio=0"]
        seed = Process([*common, *seeding, f"--listen-port={port}", f"--dir={self._folder}"])
        try:
            wait_for_port(port)
            seed.mark()
            began = time.perf_counter()
            leech = subprocess.Popen(
                [*common, "--seed-time=0", f"--listen-port={free_port()}", f"--dir={target}"],
                stdout=subprocess.DEVNULL,
            )
            _, _, usage = os.wait4(leech.pid, 0)
            handle = os.open(target / NAME, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
            wall_s = time.perf_counter() - began
            down_s = usage.ru_utime + usage.ru_stime
            peak = usage.ru_maxrss * 1024
            return Run(wall_s, down_s, seed.cpu_s(), peak, peak)
        finally:
            seed.kill()  # else it says goodbye
            seed.end()
            self._tracker.peer = 0  # libtorrent stands still when sent to where nobody listens


def wait_for_port(port: int) -> None:
    """Wait until somebody listens; asking /proc, for a connection would disturb aria2."""
    wanted = f":{port:04X} 00000000:0000 0A"
    for _ in range(500):
        if wanted in Path("/proc/net/tcp").read_text():
            return
        time.sleep(0.02)
    raise SystemExit("aria2 does not listen")


def contestants() -> tuple[list[str], dict[str, str]]:
    """Return who takes part, and who does not and why."""
    present, absent = [OURS], {}
    try:
        import libtorrent  # noqa: F401
    except ImportError:
        absent[V1] = absent[V2] = "needs pip install libtorrent"
    else:
        present += [V1, V2]
    if shutil.which("aria2c") and V1 in present:
        present.append(ARIA)
    else:
        absent[ARIA] = "needs aria2 and libtorrent (for the torrent)"
    return [*present, LIMIT], absent


def report_medium(report: Report, medium: str, rounds: list[dict[str, Run]], size: int) -> None:
    """Add the figures of one medium."""
    gib = size / GIB

    def middle(value: Callable[[dict[str, Run]], float]) -> float:
        return statistics.median(map(value, rounds))

    for who in rounds[0]:
        runs = [turns[who] for turns in rounds]
        walls = [size / MIB / run.wall_s for run in runs]
        spread = f" ({min(walls):.0f} to {max(walls):.0f})" if len(walls) > 1 else ""
        report.add(f"{medium}: {who}, wall{spread}", statistics.median(walls), "MiB/s")
        for name, unit, values in (
            ("downloader", "s/GiB", [run.down_s / gib for run in runs]),
            ("seeder", "s/GiB", [run.up_s / gib for run in runs]),
            ("downloader's peak RSS", "MiB", [run.peak / MIB for run in runs]),
        ):
            report.add(f"{medium}: {who}, {name}", statistics.median(values), unit)
    report.add(
        f"{medium}: downloader's peak RSS above idle",
        max(turns[OURS].above_idle / MIB for turns in rounds),
        "MiB",
        at_most=48,
    )
    report.add(
        f"{medium}: speed / {LIMIT}",
        middle(lambda t: t[LIMIT].wall_s / t[OURS].wall_s),
        "ratio",
        at_least=0.5,
    )
    if V1 in rounds[0]:
        report.add(
            f"{medium}: speed / libtorrent (better of v1 and v2)",
            middle(lambda t: min(t[V1].wall_s, t[V2].wall_s) / t[OURS].wall_s),
            "ratio",
            at_least=1.4,
        )
        report.add(
            f"{medium}: CPU of both / libtorrent (better of v1 and v2)",
            middle(lambda t: both(t[OURS]) / min(both(t[V1]), both(t[V2]))),
            "ratio",
            at_most=0.62,
        )
        report.add(
            f"{medium}: CPU of the seeder / libtorrent (better of v1 and v2)",
            middle(lambda t: t[OURS].up_s / min(t[V1].up_s, t[V2].up_s)),
            "ratio",
            at_most=0.3,
        )
    if ARIA in rounds[0]:
        report.add(
            f"{medium}: speed / aria2",
            middle(lambda t: t[ARIA].wall_s / t[OURS].wall_s),
            "ratio",
            at_least=2.2,
        )


def both(run: Run) -> float:
    """Return the CPU seconds of both sides."""
    return run.down_s + run.up_s


def measure(report: Report, medium: str, folder: str, size: int, count: int) -> None:
    """Run ``count`` rounds on one medium."""
    if shutil.disk_usage(folder).free < 3 * size:
        report.skip(f"{medium}: all rows", "", "not enough space")
        return
    present, absent = contestants()
    with tempfile.TemporaryDirectory(dir=folder) as text:
        course = Course(Path(text), size, Tracker())
        if V1 in present:
            course.make_torrents()
        rounds = []
        for number in range(count):
            # Everybody goes first in turn, and nobody always follows the same.
            order = present[number % len(present) :] + present[: number % len(present)]
            turns = {who: course.run(who) for who in (order if number % 2 == 0 else order[::-1])}
            rounds.append({who: turns[who] for who in present})
    report_medium(report, medium, rounds, size)
    for who, why in absent.items():
        report.skip(f"{medium}: {who}", "", why)


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report()
    size = 256 * MIB if chosen.quick else 2 * GIB
    warm = json.dumps({"who": "warm", "size": 3 * size})
    subprocess.run([sys.executable, str(ENDS), warm], check=True, capture_output=True)
    shm = "/dev/shm"
    if Path(shm).is_dir():
        measure(report, "tmpfs", shm, size, 2 if chosen.quick else 5)
    else:
        report.skip("tmpfs: all rows", "", "no tmpfs")
    if chosen.quick:
        report.skip("disk: all rows", "", "not with --quick")
    else:
        measure(report, "disk", tempfile.gettempdir(), size, 3)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
