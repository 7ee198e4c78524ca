"""How fast, and how long still. Pure; time is a parameter. Tests: ``test_progress``."""

from __future__ import annotations

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


def eta_s(left_bytes: int, bytes_per_s: float) -> float | None:
    """Return the seconds until ``left_bytes`` are there, or ``None`` while nothing moves."""
    if not left_bytes:
        return 0.0
    return left_bytes / bytes_per_s if bytes_per_s > 0 else None
