"""What a node takes from the machine it runs on, in one object: tests hand over another.

Job: :class:`Machine` names the seams (time, sockets, threads, files, names, chance);
:func:`real_machine` fills them for this computer. Tests: ``test_machine``.
"""

from __future__ import annotations

import ipaddress
import random
import resource
import secrets
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver
from zope.interface import implementer

from p2pdist import limits
from p2pdist.addresses import Address, Scope, canonical_ip, is_ipv6, scope
from p2pdist.overlay.bootstrap import Resolve
from p2pdist.overlay.reach import LocalAddress, nowhere
from p2pdist.storage.disk import IDisk
from p2pdist.storage.realdisk import RealDisk
from p2pdist.storage.statedir import read_machine_id
from p2pdist.workers import IWorkers, ThreadWorkers


@frozen(kw_only=True)
class Machine:
    """The seams between a node and its machine.

    Attributes:
        reactor: time, UDP, TCP and, for LAN discovery, multicast.
        workers: where blocking work runs.
        disk: the files.
        resolve: host name to IP texts, off the reactor.
        entropy: returns that many unpredictable bytes.
        rng: chance that need not be secret.
        wall: the time of day, in seconds; only its jumps matter.
        machine_id: what tells this machine from its clones.
        timer: seconds, for measuring work in workers; any thread may call it.
        private_addresses: private IPv4 addresses of this machine, for LAN discovery.
        own_addresses: of this machine that others may reach.
        local_address: returns the IP that a datagram to an address leaves from, or ``None``.
        open_files: files and sockets this process may have open.
    """

    reactor: Any
    workers: IWorkers
    disk: IDisk
    resolve: Resolve
    entropy: Callable[[int], bytes]
    rng: random.Random
    wall: Callable[[], float]
    machine_id: bytes = b""
    timer: Callable[[], float] = time.perf_counter
    private_addresses: tuple[str, ...] = ()
    own_addresses: tuple[str, ...] = ()
    local_address: LocalAddress = nowhere
    open_files: int = limits.FILES_WANTED


def real_machine(reactor: Any) -> Machine:
    """Return this computer; its worker threads start at once and end with the reactor."""
    workers = ThreadWorkers(reactor, limits.DISK_THREADS)
    workers.start()
    reactor.addSystemEventTrigger("after", "shutdown", workers.stop)
    return Machine(
        reactor=reactor,
        workers=workers,
        disk=RealDisk(),
        resolve=lambda host: resolve_with(reactor, host),
        entropy=secrets.token_bytes,
        rng=random.Random(secrets.randbits(128)),  # noqa: S311 -- secrets come from entropy
        wall=time.time,  # noqa: TID251 -- here the clock is what is injected
        machine_id=read_machine_id(),
        private_addresses=private_addresses(),
        own_addresses=own_addresses(),
        local_address=local_address,
        open_files=allow_files(),
    )


def allow_files() -> int:
    """Let this process have ``limits.FILES_WANTED`` files open if it may; return how many it may.

    The soft limit is often 1024 for the sake of select(2), which nobody here uses.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < limits.FILES_WANTED:
        wanted = limits.FILES_WANTED
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limits.FILES_WANTED if soft == resource.RLIM_INFINITY else soft


@implementer(IResolutionReceiver)
@define
class _Addresses:
    """Collects what the reactor's name resolver finds."""

    host: str
    done: Deferred[list[str]] = field(factory=Deferred)
    found: list[str] = field(factory=list)

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to note."""

    def addressResolved(self, address: Any) -> None:
        """Note one address."""
        self.found.append(address.host)

    def resolutionComplete(self) -> None:
        """Fire with all of them, unless nobody waits any more."""
        if self.done.called:
            return
        if self.found:
            self.done.callback(self.found)
        else:
            self.done.errback(DNSLookupError(f"no address for {self.host}"))


def resolve_with(reactor: Any, host: str) -> Deferred[list[str]]:
    """Resolve ``host`` with the reactor's resolver, which asks the system's in threads.

    Returns:
        Fires with one or more IP texts of both families; fails with DNSLookupError.
    """
    receiver = _Addresses(host)
    reactor.nameResolver.resolveHostName(receiver, host)
    return receiver.done


def local_address(towards: Address) -> str | None:
    """Return the IP of ours that a datagram to ``towards`` can leave from; ``None`` without a way.

    That is ``towards`` itself where it is ours. Sends nothing: connecting a UDP socket only asks
    the kernel for the route.
    """
    family = socket.AF_INET6 if is_ipv6(towards) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            with suppress(OSError):  # not ours; asking first, as one of several would not be chosen
                probe.bind((towards.host, 0))
            probe.connect(towards)
            return canonical_ip(probe.getsockname()[0])
    except OSError:
        return None


def own_addresses() -> tuple[str, ...]:
    """Return the addresses of this machine that others may reach, the nearer ones first.

    Loopback and link-local are left out; empty where the system does not tell.
    """
    every = [*_ipv4_addresses(), *_ipv6_addresses()]
    here = [Address(ip, 1) for ip in every if not ipaddress.ip_address(ip).is_link_local]
    far = [address for address in here if scope(address) is not Scope.LOOPBACK]
    return tuple(address.host for address in sorted(far, key=scope))


def private_addresses() -> tuple[str, ...]:
    """Return the private IPv4 addresses of this machine; empty where it cannot tell."""
    return tuple(ip for ip in _ipv4_addresses() if scope(Address(ip, 1)) is Scope.PRIVATE)


def _ipv4_addresses() -> list[str]:
    found = []
    with suppress(ImportError, OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        import fcntl

        get_address = 0x8915  # SIOCGIFADDR, netdevice(7)
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without IPv4
                request = struct.pack("256s", name.encode()[:15])
                answer = fcntl.ioctl(probe.fileno(), get_address, request)
                found.append(socket.inet_ntoa(answer[20:24]))
    return found


def _ipv6_addresses() -> list[str]:
    with suppress(OSError):  # a system without IPv6, or another than Linux
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
        return [str(ipaddress.IPv6Address(bytes.fromhex(line[:32]))) for line in lines]
    return []
