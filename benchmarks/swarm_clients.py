"""The contestants of ``swarm.py``: which program runs on which host, and when it has its copy.

Job: one class per client; each turns a :class:`Job` into command lines. Not job: links, clocks,
figures. libtorrent comes from PyPI (the extra ``benchmarks``), aria2 and transmission are the
Debian packages aria2 and transmission-cli; what is not installed says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from attrs import define, field
from links import address
from swarm_member import BITTORRENT_PORT, TRACKER_PORT

ROOT = Path(__file__).resolve().parents[1]
MEMBER = [sys.executable, str(Path(__file__).with_name("swarm_member.py"))]
NAME = "payload.bin"
PORT = 18711
PIECES = 128
"""A torrent's pieces: at least so many."""


@define(eq=False)
class Job:
    """One content to be distributed.

    Attributes:
        folder: everything of this run is below it.
        hosts: numbers of the members: 0 seeds, the others download, maybe one more poisons.
        helper: number of the host that only introduces members to each other.
        size: bytes.
    """

    folder: Path
    hosts: range
    helper: int
    size: int

    def home(self, host: int) -> Path:
        """Return a host's folder for downloads."""
        return self.folder / str(host) / "files"

    def copy(self, host: int) -> Path:
        """Return where a host's copy is, when it is complete."""
        return self.home(host) / NAME

    def done(self, host: int) -> Path:
        """Return the file that some clients touch when the copy is complete."""
        return self.folder / str(host) / "done"

    def log(self, host: int) -> Path:
        """Return where a host's output goes."""
        return self.folder / f"{host}.log"

    def others(self, host: int) -> list[str]:
        """Return the addresses of the other members."""
        return [address(number) for number in self.hosts if number != host]

    @property
    def torrent(self) -> Path:
        """Where the torrent file is."""
        return self.folder / "it.torrent"

    @property
    def descriptor(self) -> Path:
        """Where the descriptor is."""
        return self.folder / "it.desc"


@define(eq=False)
class Client:
    """A way of distributing; what most of them share.

    Attributes:
        name: for people and options.
        waits: whether leechers say "ready" and wait for a line.
        root: the tree that p2pdist is imported from.
    """

    name: str
    waits: bool = False
    root: Path = ROOT

    @property
    def environment(self) -> dict[str, str]:
        """What its programs find in the environment."""
        return {**os.environ, "PYTHONPATH": str(self.root), "PYTHONUNBUFFERED": "1"}

    def missing(self) -> str:
        """Return why it cannot run, or ``""``."""
        return ""

    def prepare(self, job: Job) -> None:
        """Describe the seed's copy."""
        write_torrent(job)

    def helper(self, job: Job) -> list[str]:
        """Return the helper's command."""
        return [*MEMBER, "tracker", *(address(number) for number in job.hosts)]

    def seed(self, job: Job, host: int) -> list[str]:
        """Return the command of who has a copy."""
        raise NotImplementedError

    def leech(self, job: Job, host: int) -> list[str]:
        """Return the command of who wants one."""
        raise NotImplementedError

    def poison(self, job: Job, host: int) -> list[str]:
        """Return the command of who serves wrong bytes; its copy is right up to now."""
        raise NotImplementedError

    def is_done(self, job: Job, host: int) -> bool:
        """Tell whether a host says that its copy is complete and right."""
        return job.done(host).exists()


@define(eq=False)
class P2PDist(Client):
    """``p2pdist get --seed`` and twistd as seed, met through a bare overlay node.

    Attributes:
        known: leechers are told the other members' addresses too, as nodes to ask.
    """

    waits: bool = True
    known: bool = False

    def prepare(self, job: Job) -> None:
        """Run ``p2pdist make``."""
        main = "from p2pdist.faces.cli.main import main; main()"
        node = f"{address(job.helper)}:{PORT}"
        subprocess.run(
            [sys.executable, "-c", main, "make", str(job.copy(0)), "--output", str(job.descriptor),
             "--node", node],
            env=self.environment, check=True, capture_output=True,
        )  # fmt: skip

    def helper(self, job: Job) -> list[str]:
        """Return the command of a bare overlay node."""
        return self._twistd("twistd", job, job.helper)

    def seed(self, job: Job, host: int) -> list[str]:
        """Return the command of twistd with a copy."""
        return [*self._twistd("twistd", job, host), "--descriptor", str(job.descriptor)]

    def poison(self, job: Job, host: int) -> list[str]:
        """Return the command of twistd that lies."""
        return [*self._twistd("poison", job, host), "--descriptor", str(job.descriptor)]

    def leech(self, job: Job, host: int) -> list[str]:
        """Return the command of ``p2pdist get``."""
        nodes = [f"--node={ip}:{PORT}" for ip in job.others(host)] if self.known else []
        return [*MEMBER, "get", str(job.descriptor), "--seed", *nodes, *self._place(job, host)]

    def is_done(self, job: Job, host: int) -> bool:
        """Tell whether the copy has been published."""
        return job.copy(host).exists()

    def _twistd(self, role: str, job: Job, host: int) -> list[str]:
        return [*MEMBER, role, "-n", "--pidfile=", "p2pdist", *self._place(job, host)]

    def _place(self, job: Job, host: int) -> list[str]:
        state = str(job.folder / str(host) / "state")
        return ["--listen", address(host), "--port", str(PORT), "--state-dir", state,
                "--directory", str(job.home(host))]  # fmt: skip


@define(eq=False)
class LibTorrent(Client):
    """libtorrent over TCP, told everybody's address.

    Attributes:
        seed_flags: besides seed_mode.
        settings: what differs from the defaults.
    """

    waits: bool = True
    seed_flags: list[str] = field(factory=list)
    settings: dict[str, object] = field(factory=dict)

    def missing(self) -> str:
        """Look for the module."""
        return "" if importlib.util.find_spec("libtorrent") else "not installed"

    def seed(self, job: Job, host: int) -> list[str]:
        """Return the seed's command."""
        return self._member(job, host, ["seed_mode", *self.seed_flags])

    def leech(self, job: Job, host: int) -> list[str]:
        """Return a leecher's command."""
        return self._member(job, host, [], waits=True)

    def poison(self, job: Job, host: int) -> list[str]:
        """Return the command of one that believes in its wrong copy."""
        turn_over(job.copy(host))
        return self._member(job, host, ["seed_mode"], disable_hash_checks=True)

    def _member(
        self, job: Job, host: int, flags: list[str], *, waits: bool = False, **settings: object
    ) -> list[str]:
        told = {
            "torrent": str(job.torrent),
            "folder": str(job.home(host)),
            "done": str(job.done(host)),
            "others": job.others(host),
            "flags": flags,
            "waits": waits,
            "settings": {**self.settings, **settings},
        }
        return [*MEMBER, "libtorrent", json.dumps(told)]


@define(eq=False)
class Aria2(Client):
    """aria2, with a tracker that names everybody."""

    def missing(self) -> str:
        """Look for the program."""
        return "" if shutil.which("aria2c") else "not installed"

    def seed(self, job: Job, host: int) -> list[str]:
        """Return the seed's command."""
        return [*self._common(job, host), "--bt-seed-unverified=true", str(job.torrent)]

    def leech(self, job: Job, host: int) -> list[str]:
        """Return a leecher's command."""
        return [*self._common(job, host), "--check-integrity=true", str(job.torrent)]

    def poison(self, job: Job, host: int) -> list[str]:
        """Return the command of one that does not look at its wrong copy."""
        turn_over(job.copy(host))
        return self.seed(job, host)

    def _common(self, job: Job, host: int) -> list[str]:
        hook = touching(job, host)
        return ["aria2c", "--no-conf", f"--dir={job.home(host)}", "--file-allocation=none",
                f"--listen-port={BITTORRENT_PORT}", "--enable-dht=false", "--enable-dht6=false",
                "--disable-ipv6=true", "--bt-enable-lpd=false", "--seed-ratio=0",
                "--seed-time=10000", "--allow-overwrite=true", "--summary-interval=0",
                f"--on-bt-download-complete={hook}"]  # fmt: skip


@define(eq=False)
class Transmission(Client):
    """transmission-cli over TCP, with a tracker that names everybody."""

    def missing(self) -> str:
        """Look for the program."""
        return "" if shutil.which("transmission-cli") else "not installed"

    def seed(self, job: Job, host: int) -> list[str]:
        """Return the seed's command."""
        return self._member(job, host)

    def leech(self, job: Job, host: int) -> list[str]:
        """Return a leecher's command."""
        return self._member(job, host)

    def poison(self, job: Job, host: int) -> list[str]:
        """Return libtorrent's command: transmission always looks at its copy first."""
        return LibTorrent("poisoner").poison(job, host)

    def is_done(self, job: Job, host: int) -> bool:
        """Tell whether the copy has its final name."""
        return job.copy(host).exists()

    def _member(self, job: Job, host: int) -> list[str]:
        folder = job.folder / str(host) / "transmission"
        folder.mkdir(exist_ok=True)
        off = ("dht-enabled", "lpd-enabled", "utp-enabled", "ratio-limit-enabled",
               "idle-seeding-limit-enabled", "port-forwarding-enabled")  # fmt: skip
        settings = {**dict.fromkeys(off, False), "rename-partial-files": True, "preallocation": 0}
        (folder / "settings.json").write_text(json.dumps(settings))
        return ["transmission-cli", "-g", str(folder), "-w", str(job.home(host)), "-M", "-U", "-D",
                "-p", str(BITTORRENT_PORT), str(job.torrent)]  # fmt: skip


def touching(job: Job, host: int) -> Path:
    """Write a program that touches a host's file ``done``, and return its path."""
    hook = job.folder / str(host) / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {job.done(host)}\n")
    hook.chmod(0o755)
    return hook


def turn_over(path: Path) -> None:
    """Change one bit in every 16 KiB of a copy."""
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 1 << 14):
        data[at] ^= 1
    path.write_bytes(data)


def piece_length(size: int) -> int:
    """Return the largest power of two that makes PIECES or more."""
    length = 1 << 14
    while size >= PIECES * 2 * length:
        length *= 2
    return length


def write_torrent(job: Job) -> None:
    """Describe the seed's copy as BEP 3 says; the dictionaries' keys stand in their order."""
    length = piece_length(job.size)
    data = job.copy(0).read_bytes()
    hashes = b"".join(
        hashlib.sha1(data[at : at + length]).digest() for at in range(0, job.size, length)
    )
    announce = f"http://{address(job.helper)}:{TRACKER_PORT}/announce".encode()
    job.torrent.write_bytes(
        b"d8:announce%d:%b4:infod6:lengthi%de4:name%d:%b12:piece lengthi%de6:pieces%d:%bee"
        % (len(announce), announce, job.size, len(NAME), NAME.encode(), length, len(hashes), hashes)
    )


CLIENTS: dict[str, Client] = {
    client.name: client
    for client in (
        P2PDist("p2pdist"),
        LibTorrent("libtorrent"),
        LibTorrent(
            "libtorrent-super",
            seed_flags=["super_seeding"],
            settings={"unchoke_slots_limit": 100},
        ),
        Aria2("aria2"),
        Transmission("transmission"),
    )
}
