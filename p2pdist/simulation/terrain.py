"""How far apart simulated nodes are, and what gets lost between them. Pure.

Job: round-trip times, jitter and loss as functions of (seed, pair). Does NOT know ids or roles
(``population``). The same terrain serves p2pdist and the methods it is compared with.

The models (``--rtt``):

* ``internet``: round-trip times of pairs are independent, lognormal, median 60 ms, sigma 0.6; no
  detour is ever shorter than the straight way by more than chance allows.
* ``planar``: nodes live on a square, distance costs time, and each has an access delay: the
  triangle inequality holds, so latency-aware hops have less to win.
* ``lan``: one millisecond, give or take.

Tests: ``test_simulation``.
"""

from __future__ import annotations

import math
import random
from statistics import NormalDist
from typing import Final

from attrs import define, field

MEDIAN_S: Final = 0.060
SIGMA: Final = 0.6
JITTER_S: Final = 0.002
PROCESSING_S: Final = 0.0005
MODELS: Final = ("internet", "planar", "lan")
_STEPS: Final = 4096
_MASK: Final = 2**64 - 1


def mixed(*words: int) -> int:
    """Return 64 well mixed bits of the given numbers (splitmix64's finalizer, chained)."""
    state = 0x9E3779B97F4A7C15
    for word in words:
        state = (state ^ word) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def _quantiles(median_s: float, sigma: float) -> tuple[float, ...]:
    normal = NormalDist()
    return tuple(
        median_s * math.exp(sigma * normal.inv_cdf((step + 0.5) / _STEPS)) for step in range(_STEPS)
    )


@define
class Terrain:
    """Delays and losses between nodes named by number.

    Args:
        seed: decides every pair's distance.
        model: one of :data:`MODELS`.
        loss: share of datagrams lost, 0 to 1, each independently.
    """

    seed: int
    model: str = "internet"
    loss: float = 0.05
    _table: tuple[float, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.model == "lan":
            self._table = _quantiles(0.001, 0.3)
        elif self.model == "planar":
            self._table = _quantiles(0.008, 0.8)
        else:
            self._table = _quantiles(MEDIAN_S, SIGMA)

    def rtt_s(self, a: int, b: int) -> float:
        """Return the round-trip time between two nodes, without jitter; the same both ways."""
        if self.model == "planar":
            ax, ay, access_a = self._place(a)
            bx, by, access_b = self._place(b)
            return access_a + access_b + 0.1 * math.hypot(ax - bx, ay - by)
        low, high = (a, b) if a < b else (b, a)
        return self._table[mixed(self.seed, low, high) >> 52]

    def _place(self, node: int) -> tuple[float, float, float]:
        bits = mixed(self.seed, node)
        return (bits >> 40) / 2**24, (bits >> 16 & 0xFFFFFF) / 2**24, self._table[bits & 0xFFF]

    def one_way_s(self, a: int, b: int, rng: random.Random) -> float:
        """Return how long one datagram takes from ``a`` to ``b``."""
        jitter_s = JITTER_S if self.model != "lan" else JITTER_S / 20
        return self.rtt_s(a, b) / 2 + rng.expovariate(1 / jitter_s) + PROCESSING_S

    def lost(self, rng: random.Random) -> bool:
        """Draw whether a datagram is lost."""
        return rng.random() < self.loss
