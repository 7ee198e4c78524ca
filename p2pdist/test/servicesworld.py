"""Whole services in the simulated network: the production ``P2PDistService`` on simulated hosts.

A :class:`Station` is one machine with its disk; it survives crashes and starts new services on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.config import Config
from p2pdist.descriptor import Descriptor
from p2pdist.machine import Machine
from p2pdist.service import P2PDistService
from p2pdist.session import Session
from p2pdist.test.network import Host, World
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import DATA, STATE, Content


@define
class _Power:
    """Tells the disk of a power failure: each unsynced change survives or not, by chance."""

    disk: SimDisk
    host: Host

    def crash(self) -> None:
        """Lose what was not synced."""
        self.disk.crash(self.host.world.chance("crash", self.host.name).random)


@define(eq=False)
class Station:
    """One machine.

    Attributes:
        host: in the simulated network.
        disk: its files; /data is the download folder, /state the state directory.
        service: of the present process, if one was started.
        timer: what work in its workers takes; nothing, unless a test says otherwise.
    """

    host: Host
    disk: SimDisk = field(factory=SimDisk)
    service: P2PDistService | None = None
    timer: Callable[[], float] = lambda: 0.0

    @classmethod
    def at(cls, world: World, *addresses: str, disk: SimDisk | None = None) -> Station:
        """Set up a machine with these addresses."""
        station = cls(world.host(*addresses), disk or SimDisk())
        station.host.disk = _Power(station.disk, station.host)
        station.disk.put_folder(DATA)
        return station

    @property
    def address(self) -> Address:
        """Where its node is."""
        return Address(self.host.addresses[0], limits.DEFAULT_PORT)

    @property
    def machine(self) -> Machine:
        """The seams of the present process."""
        host = self.host
        return Machine(
            reactor=host.reactor,
            workers=host.workers,
            disk=self.disk,
            resolve=host.resolver.resolve,
            entropy=host.entropy,
            rng=host.rng,
            wall=host.reactor.seconds,
            timer=self.timer,
            private_addresses=tuple(ip for ip in host.addresses if ":" not in ip),
            local_address=host.local_address,
        )

    def run(
        self, *descriptors: Descriptor, nodes: tuple[Station, ...] = (), **settings: Any
    ) -> P2PDistService:
        """Start a service, as ``twistd -n p2pdist`` would."""
        service = self.build(nodes=nodes, **settings)
        for descriptor in descriptors:
            service.add(descriptor)
        self.begin(service)
        return service

    def build(self, *, nodes: tuple[Station, ...] = (), **settings: Any) -> P2PDistService:
        """Make a service without starting it."""
        settings = {"listen": ("0.0.0.0",), "lan": False, "state_dir": STATE, **settings}
        config = Config(
            directory=DATA, nodes=tuple(HostPort(*node.address) for node in nodes), **settings
        )
        return P2PDistService(config, self.machine)

    def begin(self, service: P2PDistService) -> None:
        """Start a service that was built."""
        service.privilegedStartService()
        service.startService()
        self.service = service

    @property
    def session(self) -> Session:
        """The only session of the running service."""
        assert self.service is not None
        (session,) = self.service.contents.sessions.values()
        return session

    def stop(self) -> None:
        """Stop the service cleanly and check that nothing is left."""
        assert self.service is not None
        self.host.world.wait_for(self.service.stopService())
        left = self.host.leaks()
        assert not left, left
        self.service = None

    def holds(self, made: Content) -> bool:
        """Tell whether the whole content stands under its final names."""
        try:
            return all(
                self.disk.get(f"{DATA}/{path}") == data for path, data in made.files().items()
            )
        except (OSError, KeyError):
            return False

    def store(self, made: Content) -> None:
        """Put the complete content on the disk."""
        for entry, data in zip(made.metadata.files, made.files().values(), strict=True):
            mode = 0o755 if entry.executable else 0o644
            self.disk.put(f"{DATA}/{entry.joined}", data, mode=mode)


def failures_of(deferred: Deferred[Any]) -> list[Failure]:
    """Return a list that gets the failure of ``deferred``, once it fails."""
    failures: list[Failure] = []
    deferred.addErrback(failures.append)
    return failures


def pointing(made: Content, *nodes: Station | str) -> Descriptor:
    """Return the content's descriptor with these nodes."""
    entries = tuple(
        HostPort(node, limits.DEFAULT_PORT) if isinstance(node, str) else HostPort(*node.address)
        for node in nodes
    )
    return evolve(made.descriptor(), nodes=entries)
