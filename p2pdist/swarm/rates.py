"""How fast, how long still, and how much is under way. Pure; time is a parameter.

Tests: ``test_progress``.
"""

from __future__ import annotations

import math
from collections import deque

from attrs import define, field

from p2pdist import limits


@define
class RateMeter:
    """Bytes per second over the last ``limits.RATE_WINDOW_S``, in steps of a tenth of it.

    Attributes:
        total: all bytes ever counted.
    """

    total: int = 0
    _steps: deque[tuple[float, int]] = field(factory=deque)

    def add(self, size: int, now: float) -> None:
        """Count bytes that moved at ``now``."""
        self.total += size
        if self._steps and now - self._steps[-1][0] < limits.RATE_WINDOW_S / 10:
            since, before = self._steps.pop()
            self._steps.append((since, before + size))
        else:
            self._forget(now)
            self._steps.append((now, size))

    def rate(self, now: float) -> float:
        """Return bytes per second; right from the first second of a burst on."""
        self._forget(now)
        if not self._steps:
            return 0.0
        span = max(now - self._steps[0][0], limits.RATE_WINDOW_S / 10)
        return sum(size for _, size in self._steps) / span

    def _forget(self, now: float) -> None:
        while self._steps and now - self._steps[0][0] > limits.RATE_WINDOW_S:
            self._steps.popleft()


@define
class Pipeline:
    """How many pieces fill the way there and back: their rate times the shortest delay.

    The shortest delay ever seen is the line's own; later ones hold queues, and to count those would
    feed them. Source: BBR (Cardwell et al. 2016), which bounds what is in flight by two of these.
    """

    _shortest_s: float = math.inf
    _pieces: RateMeter = field(factory=RateMeter)

    def took(self, delay_s: float) -> None:
        """Learn from a question and its answer."""
        self._shortest_s = min(self._shortest_s, delay_s)

    def passed(self, now: float) -> None:
        """Count a piece."""
        self._pieces.add(1, now)

    def filling(self, now: float) -> int:
        """Return twice the pieces that pass during the shortest delay; 0 before one is known."""
        if math.isinf(self._shortest_s):
            return 0
        return int(2 * self._shortest_s * self._pieces.rate(now))


def eta_s(left_bytes: int, bytes_per_s: float) -> float | None:
    """Return the seconds until ``left_bytes`` are there, or ``None`` while nothing moves."""
    if not left_bytes:
        return 0.0
    return left_bytes / bytes_per_s if bytes_per_s > 0 else None
