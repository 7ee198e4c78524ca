"""The service: what starts, in which order, and how it stops. Embeds in any Twisted application.

::

    P2PDistService
    |- NodeService       UDP: envelope -> wire -> rpc -> lookup / routing / peertable; LAN discovery
    |- TransferService   TCP listener and dialler; one Session per descriptor
    `- UpkeepService     every few seconds: bucket refresh, re-search, saved neighbours

Job: build and wire, nothing else. Tests: ``test_service``, ``test_sim_swarm``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from p2pdist import limits, neighbours
from p2pdist.addresses import Address
from p2pdist.config import Config
from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor
from p2pdist.errors import ConfigurationError
from p2pdist.ids import HashKey, Topic, short
from p2pdist.keys import PUBLIC_NETWORK, NodeKey
from p2pdist.logs import new_logger
from p2pdist.machine import Machine
from p2pdist.neighbours import Remembered
from p2pdist.overlay.bootstrap import Bootstrap, EntryReport, EntryState
from p2pdist.overlay.lan import LANDiscovery
from p2pdist.overlay.network import Network
from p2pdist.overlay.node import Node
from p2pdist.ports import Ports
from p2pdist.session import Session
from p2pdist.storage.place import Place
from p2pdist.storage.statedir import StateDirectory
from p2pdist.storage.store import Store
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.assembly import AssemblyBudget
from p2pdist.swarm.listener import PeerListener
from p2pdist.swarm.transfer import Transfer, TransferEvents
from p2pdist.upkeep import UpkeepService

ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- compared, not bound
"""Addresses that stand for all of this machine's."""


class NodeService(Service):
    """The overlay's side of the node: node, public network, bootstrap, LAN discovery.

    Args:
        config: settings.
        machine: seams.
        key: the node's.
    """

    log = new_logger()

    def __init__(self, config: Config, machine: Machine, key: NodeKey) -> None:
        self.config = config
        self.machine = machine
        self.node = Node(
            key,
            machine.reactor,
            machine.rng,
            machine.entropy,
            machine.wall,
            machine.local_address,
        )
        self.network: Network = self.node.add_network(PUBLIC_NETWORK)
        self.bootstrap = Bootstrap(
            self.network,
            machine.reactor,
            machine.rng,
            machine.resolve,
            changed=self._entry_changed,
        )
        self.node.wrong_network.append(self.bootstrap.wrong_network)
        self.lan: LANDiscovery | None = None

    def begin(self, port: int, sessions: TransferService) -> None:
        """Go to work; ``port`` is the number that is bound."""
        # Said once the reactor runs: from then on a signal stops the node in order.
        self.machine.reactor.callWhenRunning(
            self.log.info,
            "node {node} listens on {hosts}, UDP and TCP port {port}",
            node=short(self.node.key.node_id),
            hosts=" and ".join(self.config.listen) or "all addresses",
            port=port,
        )
        self.bootstrap.add(self.config.nodes)
        self.bootstrap.start()
        if self.config.searches_lan:
            self.lan = LANDiscovery(
                self.network,
                self.machine.reactor,
                self.machine.rng,
                port,
                self.machine.private_addresses,
                sessions.lan_peer,
            )
            self.lan.start()

    def content_added(self) -> None:
        """Tell the local network of a further content."""
        if self.lan is not None:
            self.lan.hail_soon()

    def stopService(self) -> None:
        """Stop everything of the overlay; sockets belong to ``Ports``."""
        super().stopService()
        if self.lan is not None:
            self.lan.stop()
        self.bootstrap.stop()
        self.node.stop()

    def _entry_changed(self, report: EntryReport) -> None:
        """Log how a ``nodes`` entry stands."""
        good = {EntryState.ANSWERED, EntryState.ASKED, EntryState.RESOLVING, EntryState.SELF}
        emit = self.log.info if report.state in good else self.log.warn
        emit("node {entry}: {state}", entry=str(report.entry), state=report.state.value)


class TransferService(Service):
    """The contents: one session per descriptor, the listener they share, their memory budget.

    Args:
        config: settings.
        machine: seams.
        key: the node's.
        overlay: where peers are found.
    """

    log = new_logger()

    def __init__(
        self, config: Config, machine: Machine, key: NodeKey, overlay: NodeService
    ) -> None:
        self.config = config
        self.machine = machine
        self.overlay = overlay
        self.sessions: dict[HashKey, Session] = {}
        self.remembered = Remembered()
        self._key = key
        self._admission = Admission()
        self._budget = AssemblyBudget()
        self._by_topic: dict[Topic, Transfer] = {}
        self.listener = PeerListener(
            node_key=key,
            clock=machine.reactor,
            entropy=machine.entropy,
            find_transfer=self._by_topic.get,
            admission=self._admission,
        )

    def add(
        self,
        descriptor: Descriptor,
        *,
        path: str | None = None,
        replace: bool = False,
        seed_only: bool = False,
    ) -> Session:
        """Take a descriptor to work on; it begins when the service runs.

        Args:
            descriptor: of the content. The same content again only adds its nodes.
            path: an existing file or folder to seed, wherever it is.
            replace: an existing target with other content may be replaced.
            seed_only: what is not there is not fetched; the session fails instead.

        Raises:
            ConfigurationError: too many, or another content goes to the same place.
        """
        known = self.sessions.get(descriptor.hash_key)
        if known is not None:
            known.merge_nodes(descriptor.nodes)
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
        )
        session = Session(
            descriptor,
            place,
            self.overlay.network,
            self.overlay.bootstrap,
            self._make_transfer,
            self.remembered.peers.get(descriptor.hash_key, ()),
            seed_only=seed_only,
            searches_lan=self.config.searches_lan,
            member=self.overlay.content_added,
        )
        session.merge_nodes(self.config.nodes)
        self.sessions[descriptor.hash_key] = session
        self._by_topic[session.transfer.topic] = session.transfer
        if self.running:
            session.start()
        return session

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
        hash_key: HashKey,
        open_store: Callable[[Metadata], Deferred[Store]],
        events: TransferEvents,
    ) -> Transfer:
        listen = self.config.listen
        return Transfer(
            hash_key=hash_key,
            node_key=self._key,
            clock=self.machine.reactor,
            reactor=self.machine.reactor,
            rng=self.machine.rng,
            entropy=self.machine.entropy,
            workers=self.machine.workers,
            open_store=open_store,
            events=events,
            budget=self._budget,
            admission=self._admission,
            bind_host=listen[0] if len(listen) == 1 and listen[0] not in ANY else None,
        )

    def lan_peer(self, topic: Topic, address: Address) -> None:
        """Take a peer that hailed on the local network."""
        for session in self.sessions.values():
            if session.transfer.topic == topic:
                session.membership.candidate(address)

    def startService(self) -> None:
        """Begin every session."""
        super().startService()
        for session in self.sessions.values():
            session.start()

    def stopService(self) -> Deferred[None]:
        """End every session; fires when their files are closed."""
        super().stopService()
        self.listener.stop()
        stopping = [session.stop() for session in self.sessions.values()]
        return gatherResults(stopping, consumeErrors=True).addCallback(lambda _: None)


class P2PDistService(MultiService):
    """One node with any number of contents.

    Args:
        config: settings.
        machine: seams.

    Attributes:
        overlay: the UDP side.
        contents: the TCP side and the sessions.
        add: takes a descriptor and returns its session, see :meth:`TransferService.add`.
        port: UDP and TCP port number once bound.

    Raises:
        AlreadyRunning: the state directory is in use.
        StorageError, ConfigurationError: it or the download folder cannot be used.
    """

    log = new_logger()

    def __init__(self, config: Config, machine: Machine) -> None:
        MultiService.__init__(self)
        self.config = config
        self._machine = machine
        self._ports: Ports | None = None
        self._stopped: Deferred[None] | None = None
        self._state: StateDirectory | None = None
        remembered = Remembered()
        if config.state_dir is None:
            key = NodeKey.from_seed(machine.entropy(32))
        else:
            self._state = StateDirectory.open(machine.disk, config.state_dir)
            key = self._state.node_key(machine.entropy, machine.machine_id)
            remembered = neighbours.decode(self._state.load_neighbours())
        self.overlay = NodeService(config, machine, key)
        self.contents = TransferService(config, machine, key, self.overlay)
        self.contents.remembered = remembered
        self.add = self.contents.add
        self.overlay.bootstrap.add(remembered.neighbours)
        self.upkeep = UpkeepService(
            machine, self.overlay.node, self.overlay.network, self.contents.sessions, self._state
        )
        for service in (self.overlay, self.contents, self.upkeep):
            service.setServiceParent(self)

    @property
    def port(self) -> int:
        """UDP and TCP port number; what was asked for before the ports are open."""
        return self.config.port if self._ports is None else self._ports.number

    def bind(self) -> None:
        """Open the ports; again is fine. ``startService`` does it if nobody did.

        Raises:
            ConfigurationError: a port or address cannot be had.
        """
        if self._ports is None:
            self._ports = Ports.bind(
                self._machine.reactor,
                self.overlay.node,
                self.contents.listener,
                port=self.config.port,
                listen=self.config.listen,
            )

    def privilegedStartService(self) -> None:
        """Open the ports while we may open low ones."""
        self.bind()
        super().privilegedStartService()

    def startService(self) -> None:
        """Start the node and every session.

        Raises:
            ConfigurationError: as :meth:`bind`.
        """
        self.bind()
        self.overlay.begin(self.port, self.contents)
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Stop cleanly: goodbyes, files, ports, lock. Again is fine; a stopped service stays so.

        Returns:
            Fires when no delayed call, open port or unfired Deferred of this service is left.
        """
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop())
        done: Deferred[None] = Deferred()

        def tell(result: object) -> object:
            done.callback(None)
            return result

        self._stopped.addBoth(tell)
        return done

    async def _stop(self) -> None:
        """Sessions first, while the overlay can still say goodbye; then overlay, ports, lock."""
        self.upkeep.stopService()
        work = [self.upkeep.save(), self.contents.stopService()]
        in_time = await self._within(limits.STOP_S, gatherResults(work, consumeErrors=True))
        if not in_time:
            self.log.warn(
                "files are not closed after {seconds} s; what was not synced is fetched again",
                seconds=limits.STOP_S,
            )
        self.overlay.stopService()
        self.running = 0
        if self._ports is not None:
            await self._ports.close()
            self._ports = None
        if self._state is not None and in_time:
            self._state.close()  # else a late worker may still use it; it ends with the process
            self._state = None

    def _within(self, seconds: float, work: Deferred[Any]) -> Deferred[bool]:
        """Fire with whether ``work`` ended within so many seconds; it is not cancelled."""
        over: Deferred[bool] = Deferred()
        timer = self._machine.reactor.callLater(seconds, over.callback, False)

        def ended(result: object) -> None:
            if isinstance(result, Failure):
                self.log.failure("a session did not stop cleanly", result)
            if timer.active():
                timer.cancel()
                over.callback(True)

        work.addBoth(ended)
        return over
