"""What a page shows of the past: rates over time, and the last lines of the log.

Job: keep both, bounded. It does NOT sample by itself (``service`` does). Threat: log lines hold
names and reasons from strangers; they are text to the page, never markup. Tests:
``test_web_history``.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from attrs import define, field, frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from p2pdist import limits

SHOWN = (LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical)


@frozen
class Sample:
    """What moved, in bytes per second.

    Attributes:
        at: seconds of the service's clock.
        down: coming in.
        up: going out.
    """

    at: float
    down: int
    up: int

    def row(self) -> list[float]:
        """Return it as JSON."""
        return [round(self.at, 1), self.down, self.up]


@define
class Rates:
    """The last ``limits.WEB_SAMPLES`` samples, ``limits.WEB_SAMPLE_S`` apart."""

    samples: deque[Sample] = field(factory=lambda: deque(maxlen=limits.WEB_SAMPLES))

    def add(self, sample: Sample) -> None:
        """Note one, unless the last is too young: open pages bring one every second."""
        if not self.samples or sample.at - self.samples[-1].at >= 0.9 * limits.WEB_SAMPLE_S:
            self.samples.append(sample)

    def rows(self) -> list[list[float]]:
        """Return all, oldest first, as JSON."""
        return [sample.row() for sample in self.samples]


@implementer(ILogObserver)
@define(eq=False)
class Logbook:
    """The last ``limits.WEB_LOG_LINES`` lines of this package that are not for debugging.

    Attributes:
        count: lines ever noted.
    """

    count: int = 0
    _lines: deque[dict[str, Any]] = field(factory=lambda: deque(maxlen=limits.WEB_LOG_LINES))

    def __call__(self, event: LogEvent) -> None:
        """Note an event, if it is one of ours."""
        level = event.get("log_level")
        if level not in SHOWN or not str(event.get("log_namespace", "")).startswith("p2pdist"):
            return
        text = formatEvent(event)
        if len(text) > limits.WEB_LOG_CHARACTERS:
            text = text[: limits.WEB_LOG_CHARACTERS - 1] + "…"
        self.count += 1
        at = round(float(event.get("log_time", 0.0)), 3)
        self._lines.append({"n": self.count, "time": at, "level": level.name, "text": text})

    def since(self, count: int) -> list[dict[str, Any]]:
        """Return the lines after that one, oldest first, as far as they are kept."""
        return [line for line in self._lines if line["n"] > count]
