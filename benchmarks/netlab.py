"""Machines of one's own: network namespaces, and a router with delays and losses between them.

Each namespace has one TUN device ``eth0`` with one IPv4 address and no route but to the others.
The far ends of the devices belong to one router process (this file, run as a program): it forwards
every packet after the terrain's one-way delay, for kernels have not always netem. Losses are the
kernel's: nftables drops datagrams on *input* of each namespace. On output the sender's system call
would fail, which no lossy network does.

Needs root, iproute2, nftables and /dev/net/tun. Everything made here has a prefix of its own and
goes with the context manager.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import common  # noqa: F401 -- makes p2pdist importable
from attrs import define, field

from p2pdist.simulation.terrain import PROCESSING_S, Terrain

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
NETWORK = "10.77."
PACKETS_PER_TURN = 16
STDIN = 0


def missing() -> str:
    """Return what is not here, as a sentence, or ``""``."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"needs {program}"
    return "" if os.access("/dev/net/tun", os.W_OK) else "needs /dev/net/tun"


def address(number: int) -> str:
    """Return the address of machine ``number``, from 0."""
    return f"{NETWORK}{number + 1 >> 8}.{number + 1 & 255}"


def run(*command: str, lines: str = "") -> None:
    """Run a command with ``lines`` as its input.

    Raises:
        CalledProcessError: it failed.
    """
    subprocess.run(command, input=lines, text=True, check=True, stdout=subprocess.DEVNULL)


@define(eq=False)
class Lab:
    """Namespaces and their router, from ``with Lab(...)`` to its end.

    Args:
        machines: how many.
        seed: of the terrain.
        loss: share of UDP datagrams lost, a multiple of 0.01.
    """

    machines: int
    seed: int
    loss: float
    router: dict[str, float] = field(init=False, factory=dict)
    _prefix: str = field(init=False, factory=lambda: f"p2p{os.getpid()}n")
    _carrier: subprocess.Popen[str] | None = field(init=False, default=None)
    _tenants: list[subprocess.Popen[str]] = field(init=False, factory=list)

    def __enter__(self) -> Lab:  # noqa: PYI034 -- typing.Self is younger than Python 3.10
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
        names = [self._name(number) for number in range(self.machines)]
        run("ip", "-batch", "-", lines="".join(f"netns add {name}\n" for name in names))
        job = {"names": names, "seed": self.seed}
        self._carrier = subprocess.Popen(
            [sys.executable, __file__, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=os.setpgrp,  # noqa: PLW1509 -- no threads yet
        )
        assert self._carrier.stdout is not None
        if self._carrier.stdout.readline() != "ready\n":
            raise SystemExit("the router did not start")
        for number, name in enumerate(names):
            self._furnish(number, name)

    def _name(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def _furnish(self, number: int, name: str) -> None:
        """Give a namespace its address, and its losses."""
        lines = f"addr add {address(number)}/16 dev eth0\nlink set eth0 up\nlink set lo up\n"
        run("ip", "-n", name, "-batch", "-", lines=lines)
        rule = f"meta l4proto udp numgen random mod 100 < {round(self.loss * 100)} drop"
        chain = f"type filter hook input priority 0\niifname eth0 {rule}\n"
        table = f"table ip lossy {{\nchain in {{\n{chain}}}\n}}\n"
        run("ip", "netns", "exec", name, "nft", "-f", "-", lines=table)

    def start(self, number: int, *command: str) -> subprocess.Popen[str]:
        """Start a program on machine ``number``; it ends with the lab at the latest."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._name(number), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # An interrupt is for whoever holds the lab; in a session of its own each would get the
            # same share of a busy machine, whatever its priority.
            preexec_fn=os.setpgrp,  # noqa: PLW1509 -- no threads yet
        )
        self._tenants.append(process)
        return process

    def close(self) -> None:
        """End programs and router, remove the namespaces; again is fine."""
        for process in self._tenants:
            process.terminate()
        for process in self._tenants:
            process.communicate()
        self._tenants.clear()
        if self._carrier is not None:
            self._carrier.terminate()
            said, _ = self._carrier.communicate()
            self.router = json.loads(said) if said else {}
            self._carrier = None
        there = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        for line in there.stdout.splitlines():
            if line.startswith(self._prefix):
                subprocess.run(["ip", "netns", "del", line.split()[0]], check=False)


@contextlib.contextmanager
def signals_as_exit() -> Iterator[None]:
    """Let SIGTERM unwind the stack as SIGINT does, so that context managers clean up."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@define(eq=False)
class Router:
    """Forwards packets between TUN devices, each after its pair's delay.

    Args:
        names: the namespaces, in the order of their machines' numbers.
        terrain: how far apart they are.
    """

    names: list[str]
    terrain: Terrain
    late_s: list[float] = field(init=False, factory=list)
    lost: int = field(init=False, default=0)
    _devices: list[int] = field(init=False, factory=list)
    _stopping: bool = field(init=False, default=False)

    def open(self) -> None:
        """Make the devices and move one into each namespace; their far ends stay here."""
        lines = []
        for name in self.names:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
            lines.append(f"link set {name} netns {name} name eth0\n")
            self._devices.append(device)
        run("ip", "-batch", "-", lines="".join(lines))

    def stop(self, *_: Any) -> None:
        """End :meth:`carry`."""
        self._stopping = True

    def carry(self) -> bool:
        """Forward until stopped; return False if nobody did, but whoever started us is gone."""
        heap: list[tuple[float, int, int, bytes]] = []
        taken = 0
        rng = random.Random(self.terrain.seed)
        clock = time.perf_counter
        machine_of = {device: number for number, device in enumerate(self._devices)}
        while not self._stopping:
            now = clock()
            while heap and heap[0][0] <= now:
                due, _, device, packet = heapq.heappop(heap)
                try:
                    os.write(device, packet)
                except OSError:  # its device is down
                    self.lost += 1
                now = clock()
                self.late_s.append(now - due)
            wait = min(max(heap[0][0] - now, 0.0), 0.1) if heap else 0.1
            for source in select.select([*self._devices, STDIN], (), (), wait)[0]:
                if source == STDIN:
                    return self._stopping
                for _ in range(PACKETS_PER_TURN):
                    try:
                        packet = os.read(source, 2048)
                    except OSError:  # nothing more, or its device is not up yet
                        break
                    target = int.from_bytes(packet[18:20], "big") - 1
                    if packet[0] >> 4 != 4 or not 0 <= target < len(self._devices):
                        continue  # IPv6's own chatter, and multicast
                    a, b = machine_of[source], target
                    delay = self.terrain.one_way_s(a, b, rng) - PROCESSING_S
                    taken += 1
                    heapq.heappush(heap, (clock() + delay, taken, self._devices[b], packet))
        return True


def main() -> None:
    """Be the router, until SIGTERM; then say how late packets were forwarded."""
    job = json.loads(sys.argv[1])
    router = Router(job["names"], Terrain(job["seed"]))
    router.open()
    signal.signal(signal.SIGTERM, router.stop)
    with contextlib.suppress(OSError):  # a wire does not wait for the machines it connects
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    print("ready", flush=True)
    if not router.carry():
        return
    late = sorted(router.late_s) or [0.0]
    said: dict[str, float] = {"packets": len(router.late_s), "lost": router.lost}
    for percent in (50, 99):
        said[f"late_p{percent}_s"] = late[len(late) * percent // 100]
    print(json.dumps(said))


if __name__ == "__main__":
    main()
