"""The contents of one process: a session for each descriptor, and what they share.

Job: take descriptors, give them up, pause them; build what a session needs. It does NOT know what a
session does. Tests: ``test_service``, ``test_sim_swarm``, ``test_control``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from attrs import evolve, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTCP

from p2pdist import limits
from p2pdist.addresses import ANY, Address
from p2pdist.census.records import Report
from p2pdist.config import Config
from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor
from p2pdist.errors import ConfigurationError
from p2pdist.fleet import Fleet, reaches
from p2pdist.ids import HashKey, Topic, format_hash_key
from p2pdist.keptlimits import PROCESS, KeptLimits
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys, NodeKey
from p2pdist.logs import new_logger
from p2pdist.machine import Machine
from p2pdist.neighbours import Remembered
from p2pdist.overlay.network import Network
from p2pdist.overlaynode import NodeService
from p2pdist.presence import Presence
from p2pdist.session import Session
from p2pdist.stages import Stage
from p2pdist.storage.freespace import FreeSpace
from p2pdist.storage.place import Place
from p2pdist.storage.store import Store
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.assembly import AssemblyBudget
from p2pdist.swarm.listener import PeerListener
from p2pdist.swarm.shaper import Shaper
from p2pdist.swarm.swarms import Swarms
from p2pdist.swarm.throttle import RateLimits
from p2pdist.swarm.transfer import Transfer, TransferEvents
from p2pdist.swarm.transport import Transports, Way


@frozen
class Paused:
    """A content that is served no more for now.

    Attributes:
        descriptor: of it.
        path: where it is, if that was said.
        seed_only: as it was taken.
        rates: its limits.
    """

    descriptor: Descriptor
    path: str | None
    seed_only: bool
    rates: RateLimits


class TransferService(Service):
    """The contents: one session per descriptor, the listener they share, their memory budget.

    Args:
        config: settings.
        machine: seams.
        key: the node's.
        overlay: where peers are found.
        kept: rate limits that were set in earlier runs; without it there are none.

    Attributes:
        kept: likewise, and those of this run.
        reactor: where peers are dialled.
        upkeep: to be called every few seconds.
    """

    log = new_logger()

    def __init__(
        self,
        config: Config,
        machine: Machine,
        key: NodeKey,
        overlay: NodeService,
        kept: KeptLimits | None = None,
    ) -> None:
        self.config = config
        self.machine = machine
        self.overlay = overlay
        self.sessions: dict[HashKey, Session] = {}
        self.paused: dict[HashKey, Paused] = {}
        self.reactor: IReactorTCP = machine.reactor
        self._key = key
        self._transports = Transports(key, machine.entropy)
        self._shaper = Shaper(machine.reactor)
        self.kept = kept or KeptLimits(machine.workers)
        self.options_say(config.rates)
        self._admission = Admission.within(machine.open_files)
        self._budget = AssemblyBudget()
        self._free = FreeSpace(machine.disk, machine.workers, machine.reactor, config.directory)
        self.upkeep = self._free.look
        self._swarms = Swarms()
        self.listener = PeerListener(
            transports=self._transports,
            clock=machine.reactor,
            swarms=self._swarms,
            public=lambda: PUBLIC_NETWORK.tag in overlay.presences,
            admission=self._admission,
        )

    def add(
        self,
        descriptor: Descriptor,
        *,
        path: str | None = None,
        replace: bool = False,
        seed_only: bool = False,
        rates: RateLimits | None = None,
    ) -> Session:
        """Take a descriptor to work on; it begins when the service runs.

        Args:
            descriptor: of the content. The same content again only adds its nodes, and its limits.
            path: an existing file or folder to seed, wherever it is.
            replace: an existing target with other content may be replaced.
            seed_only: what is not there is not fetched; the session fails instead.
            rates: what this content may move, within what all may, as far as options say it.

        Raises:
            ConfigurationError: too many, or another content goes to the same place.
            DescriptorError: its secret was not read.
        """
        networks = descriptor.networks()
        known = self.sessions.get(descriptor.hash_key)
        if known is not None:
            self._check_networks(descriptor, known)
            known.merge_nodes(descriptor.nodes)
            if rates is not None:
                known.set_limits(self._holding(descriptor, rates))
            return known
        if len(self.sessions) >= limits.DESCRIPTORS:
            raise ConfigurationError(f"one process serves at most {limits.DESCRIPTORS} descriptors")
        self._check_target(descriptor, path)
        place = Place(
            disk=self.machine.disk,
            workers=self.machine.workers,
            clock=self.machine.reactor,
            directory=self.config.directory,
            state_directory=self.config.state_dir,
            path=path,
            replace=replace,
            timer=self.machine.timer,
        )
        presences = tuple(self.overlay.join(keys) for keys in networks)
        session = Session(
            descriptor,
            place,
            presences,
            partial(self._make_transfer, self._transports.way(networks)),
            self._known_peers(descriptor.hash_key, networks),
            seed_only=seed_only,
            searches_lan=self.config.searches_lan,
            member=partial(_content_added, presences),
            make_fleet=self._make_fleet,
        )
        self.paused.pop(descriptor.hash_key, None)
        session.merge_nodes(self.config.nodes)
        session.set_limits(self._holding(descriptor, rates or RateLimits()))
        self.sessions[descriptor.hash_key] = session
        self._swarms.add(session.transfer, networks)
        if self.running:
            session.start()
        return session

    def remove(self, hash_key: HashKey) -> Deferred[None]:
        """Give a content up: leave its swarm and close its files, which stay as they are.

        Returns:
            Fires when nothing of it is left in this process; never fails.
        """
        self.paused.pop(hash_key, None)
        session = self.sessions.get(hash_key)
        if session is None:
            return succeed(None)
        self._swarms.remove(session.transfer)

        def stopped(_none: None) -> None:
            # only now: a second session of it must not open the files of the first
            self.sessions.pop(hash_key, None)

        return session.stop().addCallback(stopped)

    def pause(self, hash_key: HashKey) -> Deferred[None]:
        """Leave a content's swarm for now; :meth:`resume` goes on. Fires as :meth:`remove` does.

        The fleet is told, so that nobody takes a machine that is paused on its way for done.
        """
        session = self.sessions.get(hash_key)
        if session is None:
            return succeed(None)
        paused = Paused(session.descriptor, session.place.path, session.seed_only, session.limits)

        def left(_none: None) -> None:
            self.paused[hash_key] = paused

        session.fleet.stop(paused=True)
        return self.remove(hash_key).addCallback(left)

    def resume(self, hash_key: HashKey) -> Session:
        """Go on with a paused content.

        Raises:
            ConfigurationError: it is not paused, or :meth:`add` says no.
        """
        paused = self.paused.get(hash_key)
        if paused is None:
            raise ConfigurationError("that content is not paused")
        said = self.kept.said(format_hash_key(hash_key))
        session = self.add(
            paused.descriptor, path=paused.path, seed_only=paused.seed_only, rates=said
        )
        session.set_limits(paused.rates)
        return session

    def _make_fleet(self, session: Session) -> Fleet:
        return Fleet(
            clock=self.machine.reactor,
            key=self._key,
            topic=session.transfer.topic,
            rng=self.machine.rng,
            report=partial(self._report, session),
            peers=session.transfer.connections,
            send=lambda peer, frame: peer.send(frame),
        )

    def _report(self, session: Session) -> Report:
        """Return what the fleet is told; a full disk has one byte free, for 0 says nothing."""
        free = self._free.bytes
        report = session.report(self.config.name, held_back=self._held_back())
        return evolve(report, disk_free=0 if free is None else max(1, free))

    def _held_back(self) -> bool:
        """Whether all contents together receive as much as they may."""
        limit = self.limits.download
        if limit is None:
            return False
        busy = [one for one in self.sessions.values() if one.stage is not Stage.SEEDING]
        return reaches(sum(s.transfer.progress().download_bytes_per_s for s in busy), limit)

    def _known_peers(
        self, hash_key: HashKey, networks: tuple[NetworkKeys, ...]
    ) -> tuple[Address, ...]:
        """Return peers of earlier runs in these networks."""
        parts = [self.overlay.remembered.get(keys.tag, Remembered()) for keys in networks]
        return tuple(dict.fromkeys(peer for part in parts for peer in part.peers.get(hash_key, ())))

    @staticmethod
    def _check_networks(descriptor: Descriptor, known: Session) -> None:
        """Refuse to let one content be in two networks that no descriptor names together."""
        if set(descriptor.secrets) != set(known.descriptor.secrets):
            raise ConfigurationError(
                f"{descriptor.source} and {known.descriptor.source} name the same content in "
                "different networks; give all its secrets in one descriptor, or use two processes"
            )

    def _check_target(self, descriptor: Descriptor, path: str | None) -> None:
        if path is not None or descriptor.name is None:
            return
        for other in self.sessions.values():
            if other.descriptor.name == descriptor.name and other.place.path is None:
                raise ConfigurationError(
                    f"{descriptor.source} and {other.descriptor.source} both go to "
                    f"{os.path.join(self.config.directory, descriptor.name)!a} but are different "  # noqa: PTH118
                    "contents; give them different folders, one process each"
                )

    def _make_transfer(
        self,
        way: Way,
        hash_key: HashKey,
        open_store: Callable[[Metadata], Deferred[Store]],
        events: TransferEvents,
    ) -> Transfer:
        listen = self.config.listen
        return Transfer(
            hash_key=hash_key,
            node_id=self._key.node_id,
            way=way,
            clock=self.machine.reactor,
            reactor=self.reactor,
            rng=self.machine.rng,
            workers=self.machine.workers,
            open_store=open_store,
            events=events,
            budget=self._budget,
            admission=self._admission,
            bind_host=listen[0] if len(listen) == 1 and listen[0] not in ANY else None,
            share=self._shaper.share(),
        )

    @property
    def limits(self) -> RateLimits:
        """What all contents may move together."""
        return self._shaper.limits

    def set_limits(self, rates: RateLimits) -> None:
        """Change it, from now on; one content's limits are its session's."""
        self._shaper.set_limits(rates)

    def options_say(self, rates: RateLimits) -> None:
        """Limit all contents together as options say, or as was set since they began to say it."""
        self.set_limits(self.kept.holding(PROCESS, rates))

    def _holding(self, descriptor: Descriptor, options: RateLimits) -> RateLimits:
        return self.kept.holding(format_hash_key(descriptor.hash_key), options)

    def lan_peer(self, network: Network, topic: Topic, address: Address) -> None:
        """Take a peer that hailed on the local network, in ``network``."""
        for session in self.sessions.values():
            if session.transfer.topic == topic:
                session.membership.candidate(address, network)

    def startService(self) -> None:
        """Begin every session."""
        super().startService()
        self.upkeep()
        for session in self.sessions.values():
            session.start()

    def stopService(self) -> Deferred[None]:
        """End every session; fires when their files are closed."""
        super().stopService()
        self.listener.stop()
        stopping = [session.stop() for session in self.sessions.values()]
        return gatherResults([*stopping, self._free.idle()], consumeErrors=True).addCallback(
            lambda _: None
        )


def _content_added(presences: tuple[Presence, ...]) -> None:
    for presence in presences:
        presence.content_added()
