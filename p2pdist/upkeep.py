"""What is done every few seconds, and what is saved for the next run.

Job: tick the node's networks and the sessions, look for our own id now and then (which fills the
nearest buckets), save neighbours and peers. It does NOT know what any of them does in a tick.
Tests: ``test_service``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from p2pdist import limits, neighbours
from p2pdist.addresses import Address, HostPort
from p2pdist.errors import NodeStopped, P2PDistError
from p2pdist.ids import HashKey
from p2pdist.logs import new_logger
from p2pdist.machine import Machine
from p2pdist.neighbours import Remembered
from p2pdist.overlay.network import Network
from p2pdist.overlay.node import Node
from p2pdist.session import Session
from p2pdist.storage.statedir import StateDirectory

UPKEEPS_PER_SAVE = round(limits.SAVE_EVERY_S / limits.UPKEEP_EVERY_S)
FIND_SELF_S = (0.5, 60.0, 240.0, 900.0)
"""When the node looks for its own id, which fills its nearest buckets."""


class UpkeepService(Service):
    """The things done every few seconds, and what is saved for the next run.

    Args:
        machine: seams.
        node: whose networks are kept.
        network: whose neighbours are remembered.
        sessions: whose waits and peers are looked after.
        state: where neighbours are saved, or ``None``.
    """

    log = new_logger()

    def __init__(
        self,
        machine: Machine,
        node: Node,
        network: Network,
        sessions: dict[HashKey, Session],
        state: StateDirectory | None,
    ) -> None:
        self._machine = machine
        self._node = node
        self._network = network
        self._sessions = sessions
        self._state = state
        self._loop = LoopingCall(self._tick)
        self._loop.clock = machine.reactor
        self._ticks = 0
        self._find_self = list(FIND_SELF_S)
        self._began = 0.0
        self._saving = DeferredLock()

    def startService(self) -> None:
        """Begin to tick."""
        super().startService()
        self._began = self._machine.reactor.seconds()
        self._network.neighbour_found.append(self._neighbour_found)
        self._loop.start(limits.UPKEEP_EVERY_S, now=False)

    def stopService(self) -> None:
        """Stop ticking."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _tick(self) -> None:
        self._ticks += 1
        for upkeep in (
            self._node.upkeep,
            *(session.upkeep for session in self._sessions.values()),
            self._look_for_ourselves,
        ):
            self._guarded(upkeep)
        if self._ticks % UPKEEPS_PER_SAVE == 0:
            self.save()

    def _guarded(self, upkeep: Callable[[], None]) -> None:
        try:
            upkeep()
        except Exception:  # noqa: BLE001 -- a bug in one must not end the upkeep of all
            self.log.failure("upkeep met a bug")

    def _look_for_ourselves(self) -> None:
        elapsed = self._machine.reactor.seconds() - self._began
        if self._find_self and elapsed >= self._find_self[0] and len(self._network.neighbours):
            while self._find_self and elapsed >= self._find_self[0]:
                self._find_self.pop(0)
            self._network.converge(self._network.node_id, limits.STORERS).addErrback(
                lambda failure: failure.trap(NodeStopped) and None
            )

    def _neighbour_found(self, address: Address) -> None:
        del address
        for session in self._sessions.values():
            session.way_in()

    def remember(self) -> Remembered:
        """Return what is worth knowing in the next run."""
        found = [e for e in self._network.neighbours if not e.suspect and not e.nat]
        found.sort(key=lambda entry: -entry.seen_at)
        return Remembered(
            tuple(HostPort(*entry.address) for entry in found[: limits.SAVED_NEIGHBOURS]),
            {key: session.joined_addresses() for key, session in self._sessions.items()},
        )

    def save(self) -> Deferred[None]:
        """Save what is worth knowing now, in a worker; one save at a time.

        Returns:
            Fires when it is saved, or cannot be, which is logged; never fails.
        """
        state, remembered = self._state, self.remember()
        if state is None or not remembered.neighbours:
            return succeed(None)  # an evening alone must not erase what is known
        data = neighbours.encode(remembered)
        return self._saving.run(
            self._machine.workers.run, partial(state.save_neighbours, data)
        ).addErrback(self._eb_saved)

    def _eb_saved(self, failure: Failure) -> None:
        failure.trap(P2PDistError)
        self.log.warn("neighbours are not saved: {reason}", reason=str(failure.value))
