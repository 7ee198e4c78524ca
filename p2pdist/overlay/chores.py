"""Small jobs of many contents, spread: joins to try, announces.

A thousand contents that begin at once, or find a node at once, would ask their few nodes more in a
second than those answer one host (``limits.RATE_REQUEST``), and what is not answered looks dead.
Job: run jobs at ``limits.RATE_CHORES``, urgent ones first, each kind in the order it came. Does NOT
know what they do; a job whose reason is gone does nothing. Threat: none from outside; many contents
in one process. Tests: ``test_chores``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID
from p2pdist.overlay.guard import RateLimit


def _limit() -> RateLimit[None]:
    return RateLimit(limits.RATE_CHORES)


@define(eq=False)
class Chores:
    """The jobs of one network.

    Args:
        clock: schedules those that must wait.
    """

    clock: IReactorTime
    _urgent: deque[tuple[float, Callable[[], None]]] = field(init=False, factory=deque)
    _others: deque[tuple[float, Callable[[], None]]] = field(init=False, factory=deque)
    _rate: RateLimit[None] = field(init=False, factory=_limit)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _running: bool = field(init=False, default=False)
    _stopped: bool = field(init=False, default=False)

    def soon(self, job: Callable[[], None], *, cost: float = 1.0, urgent: bool = False) -> None:
        """Run ``job``, at once if there is room.

        Args:
            job: what to do; may come to nothing by the time it runs.
            cost: how many requests one node may see for it, up to the burst.
            urgent: before all that are not.
        """
        (self._urgent if urgent else self._others).append((cost, job))
        if self._timer is None and not self._running and not self._stopped:
            self._run()

    def _run(self) -> None:
        """Run what may run now. A loop: a job may bring the next."""
        self._timer = None
        self._running = True
        try:
            while queue := self._urgent or self._others:
                cost, job = queue[0]
                if not self._rate.allow(None, self.clock.seconds(), cost):
                    per_second, _ = limits.RATE_CHORES
                    self._timer = self.clock.callLater(cost / per_second, self._run)
                    return
                queue.popleft()
                job()
        finally:
            self._running = False

    def stop(self) -> None:
        """Do nothing more."""
        self._stopped = True
        self._urgent.clear()
        self._others.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@define(eq=False)
class Companions:
    """Nodes that joined in some content of ours: who shares one may well share others."""

    _shared: dict[tuple[Address, NodeID], int] = field(init=False, factory=dict)

    def joined(self, address: Address, node_id: NodeID) -> None:
        """Note that a peer joined in one more content."""
        key = address, node_id
        self._shared[key] = self._shared.get(key, 0) + 1

    def left(self, address: Address, node_id: NodeID) -> None:
        """Note that it is gone from one."""
        key = address, node_id
        left = self._shared.pop(key, 0) - 1
        if left > 0:
            self._shared[key] = left

    def best(self) -> list[tuple[Address, NodeID]]:
        """Return the ``limits.COMPANIONS`` that share most with us."""
        return sorted(self._shared, key=self._shared.__getitem__, reverse=True)[: limits.COMPANIONS]
