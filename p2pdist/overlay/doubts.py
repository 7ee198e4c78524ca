"""Which neighbours take walks and bring nothing, lookup after lookup. Pure.

Job: remember, of this node's own lookups that found somebody, whether each first hop's walk brought
an offer. One that did not, ``limits.DOUBT_WALKS`` times in a row, is doubted: walks go through
others while there are any. It does NOT drop neighbours: they answer pings, and ``find`` still asks
them. Honest first hops get doubted too, by bad luck behind them; the first offer clears them, and
``limits.DOUBT_S`` does.

Threat: nodes that acknowledge queries and drop them. Who would have an honest neighbour doubted
has to eat every walk that goes through it. At most ``limits.DOUBTS`` addresses are remembered.
Tests: ``test_doubts``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address


@define
class Doubts:
    """What the walks of own lookups say about their first hops."""

    _fruitless: OrderedDict[Address, tuple[int, float]] = field(init=False, factory=OrderedDict)
    """Walks in a row that brought nothing, and when the last was judged."""

    def judge(self, walks: Mapping[Address, bool], now: float) -> None:
        """Take whether the walk through each first hop brought an offer."""
        for address, fruitful in walks.items():
            count, since = self._fruitless.pop(address, (0, now))
            if fruitful:
                continue
            if now - since >= limits.DOUBT_S:
                count = 0
            self._fruitless[address] = count + 1, now
            if len(self._fruitless) > limits.DOUBTS:
                self._fruitless.popitem(last=False)

    def doubted(self, now: float) -> frozenset[Address]:
        """Return the addresses that walks should avoid while there are others."""
        return frozenset(
            address
            for address, (count, since) in self._fruitless.items()
            if count >= limits.DOUBT_WALKS and now - since < limits.DOUBT_S
        )

    def __len__(self) -> int:
        return len(self._fruitless)
