"""What is done every few seconds, and what is saved for the next run.

Job: tick the node's networks and the sessions, save neighbours and peers of each network. It does
NOT know what any of them does in a tick.
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
from p2pdist.errors import P2PDistError
from p2pdist.ids import HashKey
from p2pdist.logs import new_logger
from p2pdist.machine import Machine
from p2pdist.neighbours import Remembered
from p2pdist.overlay.node import Node
from p2pdist.presence import Presence
from p2pdist.session import Session
from p2pdist.storage.statedir import StateDirectory

UPKEEPS_PER_SAVE = round(limits.SAVE_EVERY_S / limits.UPKEEP_EVERY_S)


class UpkeepService(Service):
    """The things done every few seconds, and what is saved for the next run.

    Args:
        machine: seams.
        node: whose networks are kept.
        presences: by tag, whose neighbours are remembered.
        sessions: whose waits and peers are looked after.
        state: where neighbours are saved, or ``None``.
        remembered: of earlier runs, by tag.
        others: called every few seconds too.
    """

    log = new_logger()

    def __init__(
        self,
        machine: Machine,
        node: Node,
        presences: dict[bytes, Presence],
        sessions: dict[HashKey, Session],
        state: StateDirectory | None,
        remembered: dict[bytes, Remembered],
        others: tuple[Callable[[], None], ...] = (),
    ) -> None:
        self._machine = machine
        self._node = node
        self._presences = presences
        self._sessions = sessions
        self._state = state
        self._remembered = remembered
        self._others = others
        self._loop = LoopingCall(self._tick)
        self._loop.clock = machine.reactor
        self._ticks = 0
        self._saving = DeferredLock()

    def startService(self) -> None:
        """Begin to tick."""
        super().startService()
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
            *self._others,
            *(session.upkeep for session in self._sessions.values()),
            *(presence.look_for_ourselves for presence in self._presences.values()),
        ):
            self._guarded(upkeep)
        if self._ticks % UPKEEPS_PER_SAVE == 0:
            self.save()

    def _guarded(self, upkeep: Callable[[], None]) -> None:
        try:
            upkeep()
        except Exception:  # noqa: BLE001 -- a bug in one must not end the upkeep of all
            self.log.failure("upkeep met a bug")

    def remember(self) -> dict[bytes, Remembered]:
        """Return what is worth knowing in the next run, by the network's tag.

        An evening alone in a network, or a run without it, does not erase what is known of it.
        """
        now = {}
        for tag, presence in self._presences.items():
            near = presence.good_neighbours()
            if near:
                now[tag] = Remembered(
                    near,
                    {
                        key: session.membership.joined_in(presence.network)
                        for key, session in self._sessions.items()
                        if presence in session.presences
                    },
                )
        return {**now, **{tag: old for tag, old in self._remembered.items() if tag not in now}}

    def save(self) -> Deferred[None]:
        """Save what is worth knowing now, in a worker; one save at a time.

        Returns:
            Fires when it is saved, or cannot be, which is logged; never fails.
        """
        state, remembered = self._state, self.remember()
        if state is None or not remembered:
            return succeed(None)
        self._remembered = remembered
        data = neighbours.encode(remembered)
        return self._saving.run(
            self._machine.workers.run, partial(state.save_neighbours, data)
        ).addErrback(self._eb_saved)

    def _eb_saved(self, failure: Failure) -> None:
        failure.trap(P2PDistError)
        self.log.warn("neighbours are not saved: {reason}", reason=str(failure.value))
