"""Reads what is complete again, slowly, and so finds what disks lost without telling anybody.

A disk that rots changes no time stamp; a piece nobody asks for may be gone for years, and with it
the last copy. So each content is read from its device, piece by piece, an hour after it was opened
and every week from then on. A wrong piece is withdrawn, and mended where that may be done
(``storage.mending``).

Job: when and what to read next, ``limits.SCRUB_BYTES_PER_S`` over all contents, a tenth of that
while pieces move. Hashing runs in workers. Does NOT mend. Tests: ``test_mending``.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from p2pdist import limits
from p2pdist.ids import HashKey
from p2pdist.session import Session
from p2pdist.storage.store import Store


@define
class _Round:
    """How far the present round of one store is.

    Attributes:
        store: which; another one begins anew.
        due_at: when it goes on.
        next: the piece to look at next.
    """

    store: Store
    due_at: float
    next: int = 0


@define(eq=False)
class Scrub:
    """The scrub of one process.

    Args:
        sessions: whose stores are read.
        clock: time.
    """

    _sessions: Mapping[HashKey, Session]
    _clock: IReactorTime
    _rounds: dict[HashKey, _Round] = field(init=False, factory=dict)
    _credit: float = field(init=False, default=0.0)
    """Bytes that may be read now; a large piece leaves less than none."""
    _reading: bool = field(init=False, default=False)

    def tick(self) -> None:
        """Read for a moment; called every ``limits.UPKEEP_EVERY_S``."""
        now = self._clock.seconds()
        self._follow(now)
        due = next((round_ for round_ in self._rounds.values() if round_.due_at <= now), None)
        if due is None or self._reading:
            return
        full = limits.SCRUB_BYTES_PER_S * limits.UPKEEP_EVERY_S
        share = limits.SCRUB_BUSY_SHARE if self._moving(now) else 1.0
        self._credit = min(self._credit + share * full, full)
        if self._credit > 0:
            self._reading = True
            Deferred.fromCoroutine(self._read(due)).addBoth(self._over)

    def _follow(self, now: float) -> None:
        """Know the stores there are."""
        stores = {key: session.transfer.store for key, session in self._sessions.items()}
        rounds, self._rounds = self._rounds, {}
        for key, store in stores.items():
            known = rounds.get(key)
            if known is not None and known.store is store:
                self._rounds[key] = known
            elif store is not None:
                self._rounds[key] = _Round(store, now + limits.SCRUB_FIRST_S)

    def _moving(self, now: float) -> bool:
        return any(
            now - peer.useful_at < limits.UPKEEP_EVERY_S
            for session in self._sessions.values()
            for peer in session.transfer.connections()
        )

    async def _read(self, round_: _Round) -> None:
        store = round_.store
        while self._credit > 0:
            index = self._next(round_)
            if index is None:
                round_.next = 0
                round_.due_at = self._clock.seconds() + limits.SCRUB_EVERY_S
                self._credit = 0.0
                return
            round_.next = index + 1
            self._credit -= store.geometry.size_of(index)
            await store.check(index)

    @staticmethod
    def _next(round_: _Round) -> int | None:
        have = round_.store.have
        return next((i for i in range(round_.next, have.count) if have.has(i)), None)

    def _over(self, result: object) -> object:
        self._reading = False
        return result
