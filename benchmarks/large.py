"""Large and many: one huge sparse file, a folder of very many files, a thousand contents.

All with real processes on loopback, a seed and a downloader, both `twistd`, and `p2pdist make` and
`verify`. For each content: seconds of each step; peak RSS of each process above the same process
with next to nothing to do; the longest stall of the downloader's reactor, which a timer of 10 ms
watches; the size of the metadata; file descriptors.

* the file: 200 GiB with 64 MiB of data in 16 places; holes are neither read, sent nor written
* the folder: 100,000 files of 0.2 to 4 kB, fetched whole, and again with `kill -9` half way
* the contents: 1,000 files of 2 kB, one process seeds all, one fetches all, beside a bare node:
  how long until each has found a peer and is complete, then CPU and datagrams while all is done,
  RSS per descriptor. Idle begins four minutes later, when the first announces are over

With `--quick` 20 GiB, 2,000 files and 100 contents, without idle CPU.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen
from common import Report, options
from startup import ENVIRONMENT

from p2pdist.addresses import HostPort
from p2pdist.content import default_piece_length
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.source import build_metadata, scan

GIB, MIB = 1 << 30, 1 << 20
ABOVE_IDLE_MIB = 48
IDLE_PER_CENT = 1.0
COMMAND = """
import re, sys
from p2pdist.faces.cli.main import main
try:
    main()
finally:
    with open("/proc/self/status") as status:  # ru_maxrss would count the parent before exec
        print(re.search("VmHWM:\\s+(\\d+)", status.read())[1], file=sys.stderr)
"""
NODE = """
import sys, time
from twisted.internet import reactor
last, worst = time.monotonic(), 0.0
def beat():
    global last, worst
    now = time.monotonic()
    worst, last = max(worst, now - last - 0.01), now
    reactor.callLater(0.01, beat)
def begin():
    global last
    last = time.monotonic()
    beat()
if "--watched" in sys.argv:
    sys.argv.remove("--watched")
    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("after", "shutdown", lambda: print("stall", worst, flush=True))
from twisted.scripts.twistd import run
run()
"""


@frozen
class Size:
    """How much is measured."""

    file_gib: int
    files: int
    contents: int
    settle_s: float
    idle_s: float
    patience_s: float


FULL = Size(200, 100_000, 1_000, 240.0, 60.0, 900.0)
QUICK = Size(20, 2_000, 100, 0.0, 2.0, 120.0)


class Node:
    """One `twistd` process whose log is read from a file."""

    def __init__(self, base: Path, name: str, *arguments: str, watched: bool = False) -> None:
        self.folder = base / name
        self.folder.mkdir(exist_ok=True)
        self._log = self.folder / "log"
        options = ["-n", "--pidfile=", "p2pdist", "--listen", "127.0.0.1", "--no-lan"]
        if "--port" not in arguments:
            options += ["--port", "0"]
        if "--directory" not in arguments:
            options += ["--directory", str(self.folder)]
        options += ["--state-dir", str(self.folder / "state"), *arguments]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", NODE, *["--watched"] * watched, *options],
                env=ENVIRONMENT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def count(self, words: str) -> int:
        """Return how many lines of the log hold ``words``."""
        return self._log.read_text().count(words)

    def wait(self, words: str, patience_s: float, times: int = 1) -> float:
        """Wait until the log holds ``words``; return the seconds it took."""
        began = time.monotonic()
        while self.count(words) < times:
            if self.process.poll() is not None or time.monotonic() - began > patience_s:
                raise SystemExit(f"no {words!r}:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)
        return time.monotonic() - began

    def port(self) -> int:
        """Return its port, once it listens."""
        self.wait("TCP port ", 120.0)
        found = re.search(r"TCP port (\d+)", self._log.read_text())
        assert found is not None
        return int(found[1])

    def memory_mib(self, kind: str) -> float:
        """Return ``VmHWM`` (peak) or ``VmRSS``."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{kind}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    def cpu_s(self) -> float:
        """Return the seconds of CPU it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def handles(self) -> int:
        """Return how many file descriptors are open."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def end(self, number: int = signal.SIGTERM) -> float:
        """End it; return the longest stall of its reactor, if that was watched."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()
        found = re.findall(r"stall ([\d.]+)", self._log.read_text())
        return float(found[-1]) if found else 0.0


def command(*arguments: str) -> tuple[float, float]:
    """Run a `p2pdist` command; return wall seconds and peak MiB."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    return time.monotonic() - began, int(done.stderr.split()[-1]) / 1024


def make_sparse(path: Path, size: int) -> None:
    """Write 64 MiB in 16 places of a file that is a hole elsewhere."""
    with path.open("wb") as file:
        file.truncate(size)
        for place in range(16):
            file.seek(place * (size // 16) + 12_345)
            file.write(os.urandom(4 * MIB))


def make_folder(top: Path, count: int) -> None:
    """Write ``count`` small files, 250 in each folder."""
    chance = random.Random(1)
    for number in range(count):
        folder = top / f"part-{number // 5_000}" / f"{number // 250}"
        if number % 250 == 0:
            folder.mkdir(parents=True)
        size = chance.randrange(200, 4_000)
        (folder / f"file-{number:06}.bin").write_bytes(chance.randbytes(size))


def disk_mib(path: Path) -> float:
    """Return what a file takes on disk."""
    return path.stat().st_blocks * 512 / MIB


def one_content(
    report: Report, base: Path, content: Path, label: str, size: Size, *, crash: bool
) -> None:
    """Make, seed, fetch (perhaps once more with a crash in between) and verify one content."""
    small = base / "small.bin"
    small.write_bytes(os.urandom(70_000))
    idle = base / "idle.desc"
    _, idle_make = command("make", str(small), "--output", str(idle), "--node", "127.0.0.1:9")
    _, idle_verify = command("verify", str(idle), "--path", str(small))
    bare = Node(base, f"{label}-bare")
    text = base / f"{label}.desc"
    port = bare.port()
    seconds, peak = command(
        "make", str(content), "--output", str(text), "--node", f"127.0.0.1:{port}"
    )
    idle_node = bare.memory_mib("VmHWM")
    report.add(f"{label}: make", seconds, "s")
    above(report, f"{label}: make", peak - idle_make)
    nodes = [bare]
    try:
        described = ("--descriptor", str(text))
        seed = Node(base, f"{label}-seed", "--directory", str(content.parent), *described)
        nodes.append(seed)
        report.add(f"{label}: seed checks it", seed.wait("is complete at", size.patience_s), "s")
        fetched = fetch(report, base, content, label, size, described, nodes, crash)
        leech = nodes[-1]
        above(report, f"{label}: seed", seed.memory_mib("VmHWM") - idle_node)
        above(report, f"{label}: downloader", leech.memory_mib("VmHWM") - idle_node)
        report.add(f"{label}: downloader's open files at the end", leech.handles(), "files")
        record = max((leech.folder / "state/complete").iterdir(), key=lambda p: p.stat().st_size)
        report.add(f"{label}: metadata and stamps", record.stat().st_size / MIB, "MiB")
    finally:
        stalls = [node.end() for node in nodes]
    report.add(f"{label}: longest stall of the downloader", stalls[-1], "s")
    seconds, peak = command("verify", str(text), "--path", str(fetched))
    report.add(f"{label}: verify", seconds, "s")
    above(report, f"{label}: verify", peak - idle_verify)
    if fetched.is_file():
        taken = disk_mib(fetched)
        report.add(f"{label}: taken on disk", taken, "MiB", at_most=2 * disk_mib(content) + 1)


def fetch(
    report: Report,
    base: Path,
    content: Path,
    label: str,
    size: Size,
    described: tuple[str, str],
    nodes: list[Node],
    crash: bool,
) -> Path:
    """Fetch a content, and once more with a crash; return where it is."""
    name = f"{label}-leech"
    leech = Node(base, name, *described, watched=True)
    nodes.append(leech)
    seconds = leech.wait("complete and verified", size.patience_s)
    report.add(f"{label}: fetch", seconds, "s")
    if crash:
        again = Node(base, f"{label}-again", *described)
        nodes.insert(-1, again)
        port = again.port()
        again.wait(": 50 %", size.patience_s)
        again.end(signal.SIGKILL)
        again = Node(base, f"{label}-again", "--port", str(port), *described)
        nodes.insert(-1, again)
        seconds = again.wait("complete and verified", size.patience_s)
        report.add(f"{label}: the rest after kill -9 half way", seconds, "s")
    return leech.folder / content.name


def above(report: Report, name: str, mib: float) -> None:
    """Add a peak above the idle process."""
    report.add(f"{name}, peak RSS above idle", mib, "MiB", at_most=ABOVE_IDLE_MIB)


def datagrams() -> int:
    """Return how many UDP datagrams this machine has sent."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("OutDatagrams")])


def describe_many(base: Path, folder: Path, count: int, port: int) -> list[str]:
    """Make ``count`` small contents; return the options that name them."""
    folder.mkdir()
    arguments = []
    for number in range(count):
        path = folder / f"content-{number:04}.bin"
        path.write_bytes(os.urandom(2_000))
        source = scan(str(path))
        metadata = build_metadata(source, default_piece_length(source.length))
        descriptor = Descriptor(
            hash_key=metadata.hash_key(),
            name=metadata.name,
            length=metadata.length,
            piece_length=metadata.piece_length,
            nodes=(HostPort("127.0.0.1", port),),
        )
        text = base / f"{path.name}.desc"
        text.write_text(descriptor.to_toml())
        assert DescriptorParser().parse_file(str(text)).hash_key == descriptor.hash_key
        arguments += ["--descriptor", str(text)]
    return arguments


def many_contents(report: Report, base: Path, size: Size) -> None:
    """A thousand contents in one process."""
    count = size.contents
    label = f"{count} contents"
    nodes = [Node(base, "many-bare")]
    try:
        described = describe_many(base, base / "contents", count, nodes[0].port())
        contents = ("--directory", str(base / "contents"))
        seed = Node(base, "many-seed", *contents, *described)
        nodes.append(seed)
        seconds = seed.wait("is complete at", size.patience_s, count)
        report.add(f"{label}: start of the seed, interpreter and hashing", seconds, "s")
        leech = Node(base, "many-leech", *described)
        nodes.append(leech)
        seconds = leech.wait("first peer", size.patience_s, count)
        report.add(f"{label}: until each found a peer", seconds, "s")
        seconds += leech.wait("complete and verified", size.patience_s, count)
        report.add(f"{label}: until each is complete", seconds, "s")
        time.sleep(size.settle_s)
        sent, used = datagrams(), [node.cpu_s() for node in nodes]
        time.sleep(size.idle_s)
        share = [(node.cpu_s() - b) / size.idle_s for node, b in zip(nodes, used, strict=True)]
        rate = (datagrams() - sent) / size.idle_s
        for name, used_share in zip(("seed", "downloader"), share[1:], strict=True):
            if size is QUICK:
                report.skip(f"{label}: idle CPU of the {name}", "%", "needs minutes to settle")
            else:
                row = f"{label}: idle CPU of the {name}"
                report.add(row, 100 * used_share, "%", at_most=IDLE_PER_CENT)
        report.add(f"{label}: datagrams sent by all three while idle", rate, "per s")
        idle = nodes[0].memory_mib("VmRSS")
        for name, node in (("seed", seed), ("downloader", leech)):
            each = (node.memory_mib("VmRSS") - idle) * 1024 / count
            report.add(f"{label}: RSS of the {name} per descriptor", each, "KiB")
            report.add(f"{label}: file descriptors of the {name}", node.handles(), "files")
    finally:
        for node in nodes:
            node.end()


def measure(report: Report, size: Size) -> None:
    """Measure everything."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, _hard()), _hard()))  # the usual limit
    parts: list[Callable[[Path], None]] = [
        lambda base: sparse_file(report, base, size),
        lambda base: folder_of_many(report, base, size),
        lambda base: many_contents(report, base, size),
    ]
    for part in parts:
        base = Path(tempfile.mkdtemp(prefix="p2pdist-large-"))
        try:
            part(base)
        finally:
            shutil.rmtree(base, ignore_errors=True)


def _hard() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def sparse_file(report: Report, base: Path, size: Size) -> None:
    """One huge file that is nearly all hole."""
    path = base / "origin" / "huge.bin"
    path.parent.mkdir()
    make_sparse(path, size.file_gib * GIB)
    one_content(report, base, path, f"{size.file_gib} GiB sparse", size, crash=False)


def folder_of_many(report: Report, base: Path, size: Size) -> None:
    """One folder of very many small files."""
    path = base / "origin" / "folder"
    make_folder(path, size.files)
    one_content(report, base, path, f"{size.files} files", size, crash=True)


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report()
    measure(report, QUICK if chosen.quick else FULL)
    report.print(as_json=chosen.json)


if __name__ == "__main__":
    main()
