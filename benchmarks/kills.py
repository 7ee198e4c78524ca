"""Real processes killed with SIGKILL at random points: is anything wrong, and what is done again?

A seed with an upload limit and a downloader, each `twistd -n p2pdist` on loopback. The downloader
is killed after a random time, in its start, in mid-download, around publishing or after it; then
its disk is looked at, and it is started again, until the download is done; then the next begins.

After each kill: a piece whose bit is recorded must be there, and what the next start counts as
there is held against what lies on disk. Over whole downloads: bytes the seed sent beyond the
content, by kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field
from common import Report, options

from p2pdist import limits
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.storage.layout import part_name, state_name
from p2pdist.storage.realdisk import RealDisk
from p2pdist.storage.statefile import StateFile
from p2pdist.storage.tree import FileTree, identity

ROOT = Path(__file__).resolve().parents[1]
RUN = "from twisted.scripts.twistd import run; run()"
PIECE = limits.MIB // 4
SECONDS = 3.0
"""Of one download without kills, about."""
FILES = 128
"""A seed may have open that many callers crowd."""
EARLY = 0.15
"""Of the kills so many come while the process starts, the others after its first answer."""


@define
class Node:
    """One process.

    Attributes:
        folder: where its files go.
        process: of it, while it runs.
    """

    folder: Path
    descriptor: Path
    port: int
    limit: int = 0
    files: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        """Return its state directory."""
        return self.folder.with_suffix(".s")

    def start(self) -> None:
        """Start it; its log is appended to."""
        self.folder.mkdir(exist_ok=True)
        arguments = ["--listen", "127.0.0.1", "--port", str(self.port), "--no-lan"]
        arguments += ["--directory", str(self.folder), "--state-dir", str(self.state)]
        arguments += ["--descriptor", str(self.descriptor)]
        if self.limit:
            arguments += ["--upload-limit", f"{self.limit // limits.KIB}KiB"]
        with self.folder.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, "-n", "--pidfile=", "p2pdist", *arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
                preexec_fn=partial(_allow, self.files) if self.files else None,  # noqa: PLW1509
            )

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def status(self) -> dict[str, Any] | None:
        """Ask it; ``None`` when it does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(10)
                asking.connect(str(self.state / "control"))
                asking.sendall(b'{"method": "status"}\n')
                answer = b""
                while not answer.endswith(b"\n"):
                    answer += asking.recv(65536) or b"\n"
            (content,) = json.loads(answer)["result"]["contents"]
        except (OSError, ValueError, KeyError):
            return None
        assert isinstance(content, dict)
        return content


def _allow(files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


@define
class Looking:
    """What lies on disk between two processes.

    Attributes:
        original: the content's bytes.
        descriptor: of it.
        folder: of the downloader.
    """

    original: bytes
    descriptor: Descriptor
    folder: Path
    disk: RealDisk = field(factory=RealDisk)

    @property
    def target(self) -> Path:
        """Return the final name."""
        assert self.descriptor.name is not None
        return self.folder / self.descriptor.name

    def good(self) -> set[int] | None:
        """Return the pieces whose bytes are in the part; ``None`` without one."""
        path = self.folder / part_name(self.target.name, self.descriptor.hash_key)
        if not path.exists():
            return None
        data = path.read_bytes()
        count = -(-len(self.original) // PIECE)
        spans = (slice(index * PIECE, (index + 1) * PIECE) for index in range(count))
        return {index for index, span in enumerate(spans) if data[span] == self.original[span]}

    def recorded(self) -> set[int]:
        """Return the pieces the state file vouches for."""
        key = self.descriptor.hash_key
        name = state_name(self.target.name, key)
        if not (self.folder / name).exists():
            return set()
        state = StateFile.open(self.disk, str(self.folder), name, key, create=False)
        assert state is not None
        try:
            if state.metadata is None:
                return set()
            top = part_name(self.target.name, key)
            tree = FileTree(self.disk, str(self.folder), top, state.metadata.files)
            try:
                bits = state.load(identity(tree.stamps()))
            except OSError:
                return set()
            finally:
                tree.close()
            return set() if bits is None else set(bits)
        finally:
            state.close()


@define
class Tally:
    """What was seen.

    Attributes:
        seed: decides when to kill.
        kills: so far.
        wrong: recorded pieces that were not there.
        unrecorded: most pieces that lay on disk without a record.
        again: bytes the seed sent beyond the content, in all downloads.
        downloads: finished and equal.
        lost: most pieces that lay on disk and were not found by the next start.
        start_s: times from a start to the first status that counts pieces.
    """

    seed: int = 0
    kills: int = 0
    wrong: int = 0
    unrecorded: int = 0
    lost: int = 0
    again: int = 0
    downloads: int = 0
    start_s: list[float] = field(factory=list)

    def found(self, there: int, status: dict[str, Any]) -> None:
        """Hold what a start knows against the pieces that were there."""
        lost = there - (status["have_pieces"] or 0)
        if lost > 0:
            print(f"{there} pieces were there, but {status}", file=sys.stderr)
        self.lost = max(self.lost, lost)


def one_life(
    leech: Node, tally: Tally, there: set[int] | None, chance: random.Random | None
) -> bool:
    """Start, kill after a while, or once it seeds without ``chance``; return whether it was done.

    ``there`` is what lay on disk before.
    """
    leech.start()
    began = time.monotonic()
    early = chance is not None and chance.random() < EARLY
    until = began + (chance.uniform(0.1, 2.0) if chance is not None and early else 120)
    up = done = False
    while time.monotonic() < until and not done:
        status = leech.status()
        if status is not None:
            if chance is not None and not (up or early):
                until = time.monotonic() + chance.uniform(0.0, SECONDS)
            up = True
            done = status["stage"] == "seeding"
            if there is not None and status["stage"] != "checking":
                tally.start_s.append(time.monotonic() - began)
                tally.found(len(there), status)
                there = None
        time.sleep(0.02)
    if done and chance is not None and chance.random() < 0.5:
        time.sleep(chance.random())  # killed while it seeds
    leech.kill()
    tally.kills += 1
    return done


def one_download(leech: Node, seed: Node, look: Looking, tally: Tally, kills: int) -> None:
    """Download once, with a kill every now and then."""
    before = seed.status()
    assert before is not None
    there: set[int] | None = None
    done = False
    while not done:
        chance = random.Random(f"{tally.seed} {tally.kills}") if tally.kills < kills else None
        done = one_life(leech, tally, there, chance)
        there = look.good()
        if there is not None:
            recorded = look.recorded()
            tally.wrong += len(recorded - there)
            tally.unrecorded = max(tally.unrecorded, len(there - recorded))
    if look.target.read_bytes() != look.original:
        tally.wrong += 1
    tally.downloads += 1
    after = seed.status()
    assert after is not None
    tally.again += after["uploaded_bytes"] - before["uploaded_bytes"] - len(look.original)
    for path in (*leech.folder.iterdir(), *leech.state.glob("complete/*")):
        path.unlink()


def free_port() -> int:
    """Return a port nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def described(top: Path, original: bytes, rate: int) -> tuple[Node, Node, Looking]:
    """Make a content, and a seed and a downloader of it; neither runs yet."""
    seed_folder = top / "a"
    seed_folder.mkdir()
    (seed_folder / "m.bin").write_bytes(original)
    port, path = free_port(), top / "m.desc"
    make = "from p2pdist.faces.cli.main import main; main()"
    arguments = ["make", str(seed_folder / "m.bin"), "--output", str(path)]
    arguments += ["--node", f"127.0.0.1:{port}", "--piece-length", str(PIECE)]
    subprocess.run(
        [sys.executable, "-c", make, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    leech = Node(top / "b", path, free_port())
    look = Looking(original, DescriptorParser().parse_file(str(path)), leech.folder)
    return Node(seed_folder, path, port, limit=rate), leech, look


@contextmanager
def running(seed: Node, leech: Node) -> Iterator[None]:
    """Start the seed and wait for it; leave no process behind."""
    seed.start()
    try:
        while seed.status() is None:
            time.sleep(0.1)
        yield
    finally:
        for node in (seed, leech):
            if node.process is not None and node.process.poll() is None:
                node.kill()


def measure(report: Report, top: Path, kills: int, size: int) -> None:
    """Kill so often."""
    rate = round(size / SECONDS)
    seed, leech, look = described(top, random.Random(1).randbytes(size), rate)
    tally = Tally(report.seed)
    with running(seed, leech):
        while tally.kills < kills:
            one_download(leech, seed, look, tally, kills)
            told = f"{tally.kills} kills, {tally.downloads} downloads, {tally.wrong} wrong"
            print(told, file=sys.stderr, flush=True)
    bound = (min(limits.SYNC_BYTES, limits.SYNC_EVERY_S * rate) + 8 * PIECE) / limits.MIB
    report.add("kill -9: kills", tally.kills, "", at_least=kills)
    report.add("kill -9: downloads finished, all equal", tally.downloads, "")
    report.add("kill -9: bits without data, and wrong bytes", tally.wrong, "", at_most=0)
    report.add(
        "kill -9: on disk and not recorded, most", tally.unrecorded * PIECE / limits.MIB, "MiB"
    )
    report.add(
        "kill -9: of that not found by the next start, most", tally.lost, "pieces", at_most=0
    )
    again = tally.again / max(tally.kills, 1) / limits.MIB
    report.add("kill -9: fetched again, by kill", again, "MiB", at_most=bound)
    starts = sorted(tally.start_s)
    if starts:
        report.add("kill -9: start to first status, median", starts[len(starts) // 2], "s")


def crowded(report: Report, top: Path, callers: int) -> None:
    """Let so many silent callers come to a seed that may have FILES files open; then download."""
    seed, leech, look = described(top, random.Random(1).randbytes(4 * limits.MIB), 0)
    seed.files = FILES
    with running(seed, leech):
        assert seed.process is not None
        cpu = cpu_s(seed.process.pid)
        address = ("127.0.0.1", seed.port)
        sockets = [socket.create_connection(address) for _ in range(callers)]
        began = time.monotonic()
        leech.start()
        while time.monotonic() < began + 60 and not look.target.exists():
            time.sleep(0.05)
        took = time.monotonic() - began
        spent = (cpu_s(seed.process.pid) - cpu) / took
        for each in sockets:
            each.close()
        alive = seed.status() is not None
    right = look.target.exists() and look.target.read_bytes() == look.original
    name = f"{callers} silent callers at a seed with {FILES} files"
    report.add(f"{name}: copy right, seed alive", int(right and alive), "", at_least=1)
    report.add(f"{name}: download", took, "s", at_most=30)
    report.add(f"{name}: CPU of the seed", 100 * spent, "%", at_most=50)


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Kill and look."""
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--kills", type=int, help="300; quick: 8")
    more.add_argument("--seed", type=int, default=0, help="of the times; runs add up")
    asked = options(__doc__, more)
    kills = asked.kills or (8 if asked.quick else 300)
    report = Report(asked.seed)
    with tempfile.TemporaryDirectory(prefix="p2pk-") as top:
        measure(report, Path(top), kills, (8 if asked.quick else 24) * limits.MIB)
    report.print(as_json=asked.json)


if __name__ == "__main__":
    main()
