"""The service: what starts, in which order, and how it stops. Embeds in any Twisted application.

::

    P2PDistService
    |- NodeService       UDP: envelope -> wire -> rpc -> lookup / routing / peertable; in each
    |                    network a Presence with its ways in and LAN discovery
    |- TransferService   TCP listener and dialler; one Session per descriptor
    `- UpkeepService     every few seconds: bucket refresh, re-search, saved neighbours

Job: build and wire, nothing else. Tests: ``test_service``, ``test_sim_swarm``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.python.failure import Failure

from p2pdist import limits, neighbours
from p2pdist.config import Config
from p2pdist.contents import TransferService
from p2pdist.ids import NodeID
from p2pdist.keptcontents import KeptContents
from p2pdist.keptlimits import KeptLimits
from p2pdist.keys import NodeKey
from p2pdist.logs import new_logger
from p2pdist.machine import Machine
from p2pdist.neighbours import Remembered
from p2pdist.overlaynode import NodeService
from p2pdist.ports import Inherited, Ports
from p2pdist.scrub import Scrub
from p2pdist.storage.statedir import StateDirectory
from p2pdist.upkeep import UpkeepService


class P2PDistService(MultiService):
    """One node with any number of contents.

    Args:
        config: settings.
        machine: seams.

    Attributes:
        overlay: the UDP side.
        contents: the TCP side and the sessions.
        added: what ``p2pdist add`` brought, in this run and earlier ones.
        add: takes a descriptor and returns its session, see :meth:`TransferService.add`.
        set_limits: changes the rate limits of all contents together.
        port: UDP and TCP port number once bound.
        inherited: sockets to take over in place of opening ports; set it before.

    Raises:
        AlreadyRunning: the state directory is in use.
        StorageError, ConfigurationError: it or the download folder cannot be used.
    """

    log = new_logger()

    def __init__(self, config: Config, machine: Machine) -> None:
        MultiService.__init__(self)
        self.config = config
        self._machine = machine
        self.inherited: Sequence[Inherited] = ()
        self._ports: Ports | None = None
        self._stopped: Deferred[None] | None = None
        self._state: StateDirectory | None = None
        remembered: dict[bytes, Remembered] = {}
        if config.state_dir is None:
            key = NodeKey.from_seed(machine.entropy(32))
        else:
            self._state = StateDirectory.open(machine.disk, config.state_dir)
            key = self._state.node_key(machine.entropy, machine.machine_id)
            remembered = neighbours.decode(self._state.load_neighbours())
        self.overlay = NodeService(config, machine, key, remembered)
        kept = KeptLimits(machine.workers, self._state)
        self.contents = TransferService(config, machine, key, self.overlay, kept)
        self.added = KeptContents(machine.workers, self._state)
        self.add = self.contents.add
        self.set_limits = self.contents.set_limits
        self.upkeep = UpkeepService(
            machine,
            self.overlay.node,
            self.overlay.presences,
            self.contents.sessions,
            self._state,
            remembered,
            (self.contents.upkeep, Scrub(self.contents.sessions, machine.reactor).tick),
        )
        for service in (self.overlay, self.contents, self.upkeep):
            service.setServiceParent(self)

    @property
    def node_id(self) -> NodeID:
        """Who we are."""
        return self.overlay.node.key.node_id

    @property
    def port(self) -> int:
        """UDP and TCP port number; what was asked for before the ports are open."""
        return self.config.port if self._ports is None else self._ports.number

    @property
    def state(self) -> StateDirectory | None:
        """The state directory, while it is open and if there is one."""
        return self._state

    def web_token(self) -> str:
        """Return the key of the page: the state directory's, else one of this run only.

        Raises:
            StorageError, ConfigurationError: the file cannot be used.
        """
        entropy = self._machine.entropy
        return entropy(32).hex() if self._state is None else self._state.web_token(entropy)

    def bind(self) -> None:
        """Open the ports; again is fine. ``startService`` does it if nobody did.

        Raises:
            ConfigurationError: a port or address cannot be had.
        """
        if self._ports is None and self.inherited:
            self._ports = Ports.adopt(
                self._machine.reactor, self.overlay.node, self.contents.listener, self.inherited
            )
            self.inherited = ()
        elif self._ports is None:
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
        own = (self.overlay, self.contents, self.upkeep)
        others = [maybeDeferred(one.stopService) for one in self if one not in own]
        work = [*others, self.upkeep.save(), self.contents.stopService()]
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
