"""Hosts on shaped links: a network namespace each, and one wire between them.

Job: make namespaces with one TUN device each, shape the uplinks (``tc tbf`` inside the namespace,
where TCP feels it as it feels its own network card), and run the wire (``links.c``, compiled here):
delay, loss, and each host's downlink with a drop-tail queue. For kernels have not always netem.
Not job: who runs on the hosts. TCP's congestion control is chosen by the hosts' routes, so that
nothing outside the namespaces changes.

Needs root, iproute2, /dev/net/tun and a C compiler. Everything made here has a prefix of its own
and goes with the context manager.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attrs import define, field, frozen
from netlab import IFF_TUN_NO_PI, TUNSETIFF, run
from netlab import missing as netlab_missing

HOSTS_MAX = 64
NETWORK = "10.78."
QUEUE_S = 0.06
"""What a queue holds, at its link's rate."""
QUEUE_BYTES_MIN = 15_000
BURST_S = 0.01
"""How late the kernel may look at an uplink without a loss of bandwidth."""
BURST_BYTES_MIN = 3_200


@frozen
class Link:
    """One host's line; 0 is without limit.

    Attributes:
        up: bits per second to the others.
        down: bits per second from them.
    """

    up: float
    down: float


@frozen
class Count:
    """What passed one host's device, in bytes of IP packets and in packets.

    Attributes:
        sent: bytes.
        received: bytes.
        lost: packets to it that chance took.
        dropped: packets to it that found its queue full.
    """

    sent: int
    received: int
    lost: int
    dropped: int


def missing() -> str:
    """Return what is not here, as a sentence, or ``""``."""
    for program in ("tc", "cc"):
        if shutil.which(program) is None:
            return f"needs {program}"
    return netlab_missing()


def address(number: int) -> str:
    """Return the address of host ``number``, from 0."""
    return f"{NETWORK}{number + 1 >> 8}.{number + 1 & 255}"


def queue_bytes(bits_per_s: float) -> int:
    """Return what the queue of a link holds."""
    return max(QUEUE_BYTES_MIN, int(bits_per_s / 8 * QUEUE_S))


@define(eq=False)
class Links:
    """The hosts, from ``with Links(...)`` to its end.

    Args:
        links: one per host.
        rtt_s: of every pair.
        loss: share of packets lost on the way, from 0 to 1.
        seed: of the losses.
        congestion: TCP's congestion control on every host.
    """

    links: list[Link]
    rtt_s: float
    loss: float = 0.0
    seed: int = 1
    congestion: str = "cubic"
    _prefix: str = field(init=False, factory=lambda: f"p2ps{os.getpid()}x")
    _wire: subprocess.Popen[str] | None = field(init=False, default=None)
    _tenants: list[subprocess.Popen[bytes]] = field(init=False, factory=list)
    _folder: tempfile.TemporaryDirectory[str] = field(
        init=False, factory=lambda: tempfile.TemporaryDirectory(prefix="links-")
    )
    _counters: mmap.mmap = field(init=False)

    def __enter__(self) -> Links:  # noqa: PYI034 -- typing.Self is younger than Python 3.10
        """Make everything."""
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove everything."""
        self.close()

    def _build(self) -> None:
        program = Path(self._folder.name) / "links"
        run("cc", "-O2", "-o", str(program), str(Path(__file__).with_name("links.c")))
        counters = Path(self._folder.name) / "counters"
        counters.write_bytes(bytes((2 + 4 * HOSTS_MAX) * 8))
        with counters.open("r+b") as file:
            self._counters = mmap.mmap(file.fileno(), 0)
        names = [self.name(number) for number in range(len(self.links))]
        run("ip", "-batch", "-", lines="".join(f"netns add {name}\n" for name in names))
        devices = self._devices(names)
        ends = [
            text
            for device, link in zip(devices, self.links, strict=True)
            for text in (str(device), str(link.down), str(queue_bytes(link.down)))
        ]
        delay_ns = str(round(self.rtt_s / 2 * 1e9))
        self._wire = subprocess.Popen(
            [str(program), str(counters), str(self.seed), delay_ns, str(self.loss), *ends],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=devices,
            text=True,
            preexec_fn=os.setpgrp,  # noqa: PLW1509 -- no threads yet
        )
        for device in devices:
            os.close(device)
        assert self._wire.stdout is not None
        if self._wire.stdout.readline() != "ready\n":
            raise SystemExit("the wire did not start")
        for number, link in enumerate(self.links):
            self._furnish(number, link)

    def _devices(self, names: list[str]) -> list[int]:
        """Return the far ends of the devices that are put into the namespaces."""
        devices, lines = [], ""
        for name in names:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
            lines += f"link set {name} netns {name} name eth0\n"
            devices.append(device)
        run("ip", "-batch", "-", lines=lines)
        return devices

    def _furnish(self, number: int, link: Link) -> None:
        """Give a host its address, its route and its uplink."""
        name, ip = self.name(number), address(number)
        lines = f"addr add {ip}/16 dev eth0\nlink set eth0 up\nlink set lo up\n"
        route = f"{NETWORK}0.0/16 dev eth0 src {ip} congctl {self.congestion}"
        lines += f"route replace {route}\n"
        run("ip", "-n", name, "-batch", "-", lines=lines)
        if link.up:
            burst = max(BURST_BYTES_MIN, int(link.up / 8 * BURST_S))
            shape = f"tbf rate {link.up:.0f}bit burst {burst} limit {queue_bytes(link.up)}"
            run("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", *shape.split())

    def name(self, number: int) -> str:
        """Return the namespace of host ``number``."""
        return f"{self._prefix}{number}"

    def start(
        self, number: int, command: list[str], log: Path, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on host ``number``, its output added to ``log``; it ends with us."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name(number), *command],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=environment,
                preexec_fn=os.setpgrp,  # noqa: PLW1509 -- an interrupt is for whoever holds us
            )
        self._tenants.append(process)
        return process

    def count(self, number: int) -> Count:
        """Return what passed host ``number`` up to now."""
        return Count(*struct.unpack_from("=4Q", self._counters, 16 + 32 * number))

    @property
    def late(self) -> float:
        """Share of the packets that were handed over 2 ms or more too late, from 0 to 1."""
        packets, late = struct.unpack_from("=2Q", self._counters, 0)
        return late / packets if packets else 0.0

    def close(self) -> None:
        """End programs and wire, remove the namespaces; again is fine."""
        for process in self._tenants:
            process.kill()
        for process in self._tenants:
            process.communicate()
        self._tenants.clear()
        if self._wire is not None:
            self._wire.communicate()
            self._wire = None
        there = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        for line in there.stdout.splitlines():
            if line.startswith(self._prefix):
                subprocess.run(["ip", "netns", "del", line.split()[0]], check=False)
        self._folder.cleanup()


_SEND = """
import socket, sys, time
line = socket.create_connection((sys.argv[1], 7))
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    line.sendall(bytes(16384))
"""
_RECEIVE = """
import socket, sys, time
server = socket.create_server(("", 7))
print("ready", flush=True)
line = server.accept()[0]
until, got, begun, ended = time.monotonic() + float(sys.argv[1]), 0, 0.0, 0.0
while True:
    size = len(line.recv(65536))
    if not size:
        break
    if time.monotonic() < until:  # slow start does not count
        begun = ended = time.monotonic()
        continue
    got, ended = got + size, time.monotonic()
print(got / (ended - begun))
"""


def goodput(bits_per_s: float, rtt_s: float, seconds: float) -> float:
    """Return what one TCP connection carries, in bytes per second, over an idle pair of hosts."""
    link = Link(bits_per_s, bits_per_s)
    with Links([link, link], rtt_s) as links, tempfile.TemporaryDirectory() as text:
        log = Path(text) / "log"
        receiver = links.start(1, [sys.executable, "-c", _RECEIVE, str(seconds / 4)], log)
        while not log.exists() or b"ready" not in log.read_bytes():
            if receiver.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.01)
        sender = [sys.executable, "-c", _SEND, address(1), str(seconds)]
        links.start(0, sender, Path(text) / "sender")
        receiver.wait(seconds * 4 + 10)
        return float(log.read_text().split()[-1])
