"""Which searches of a network run, wait and are remembered. Pure but for starting them.

Job: at most ``limits.LOOKUPS`` searches at once, the others in the order they came, those of
seeds last and never in every place: who lacks something must not wait for a thousand that do not. A
search is kept after its end, because late offers still count, until whoever began it forgets it.
It does NOT search. Threat: none from outside; many contents in one process. Tests: ``test_search``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from attrs import define, field

from p2pdist import limits
from p2pdist.overlay.messages import Status
from p2pdist.overlay.search import Search

SEARCHES_KEPT = 4 * limits.LOOKUPS + limits.DESCRIPTORS


@define(eq=False)
class Agenda:
    """The searches of one network."""

    _kept: OrderedDict[bytes, Search] = field(init=False, factory=OrderedDict)
    _active: dict[bytes, Search] = field(init=False, factory=dict)
    _urgent: OrderedDict[bytes, Search] = field(init=False, factory=OrderedDict)
    _seeds: OrderedDict[bytes, Search] = field(init=False, factory=OrderedDict)
    _filling: bool = field(init=False, default=False)
    _stopped: bool = field(init=False, default=False)

    def __iter__(self) -> Iterator[Search]:
        return iter(list(self._kept.values()))

    def get(self, query: bytes) -> Search | None:
        """Return the search whose qids begin with ``query``."""
        return self._kept.get(query)

    def begin(self, search: Search) -> None:
        """Run a search now, or when one of ``limits.LOOKUPS`` others has ended."""
        self._kept[search.query] = search
        while len(self._kept) > SEARCHES_KEPT:
            self._kept.popitem(last=False)
        status, _ = search.me()
        (self._seeds if status is Status.SEED else self._urgent)[search.query] = search
        self._fill()

    def waits(self, search: Search) -> bool:
        """Tell whether a search has still to begin."""
        return search.query in self._urgent or search.query in self._seeds

    def _fill(self) -> None:
        """Start whoever has a place now. A loop: a search may be over as it starts."""
        if self._filling:
            return
        self._filling = True
        try:
            while not self._stopped and (queue := self._next_queue()):
                query, search = queue.popitem(last=False)
                self._active[query] = search
                search.start()
        finally:
            self._filling = False

    def _next_queue(self) -> OrderedDict[bytes, Search] | None:
        """Return whose first search may start now, if any may."""
        free = limits.LOOKUPS - len(self._active)
        if self._urgent:
            return self._urgent if free > 0 else None
        return self._seeds if free > 1 else None

    def ended(self, search: Search) -> None:
        """Note that a search is over; the next waiting one starts."""
        self._active.pop(search.query, None)
        self._fill()

    def forget(self, search: Search) -> None:
        """Drop a search, also one that runs or waits; its late offers interest nobody."""
        if self._kept.pop(search.query, None) is not None:
            search.forgotten()
        self._urgent.pop(search.query, None)
        self._seeds.pop(search.query, None)
        self.ended(search)

    def stop(self) -> None:
        """End every search without telling."""
        self._stopped = True
        for search in [*self, *self._active.values()]:
            search.stop()
