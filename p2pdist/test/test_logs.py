"""Tests of the package's loggers."""

from __future__ import annotations

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import implementer

from p2pdist import logs
from p2pdist.test.support import TestCase


class Speaker:
    """Somebody who logs."""

    log = logs.new_logger()


class LogTests(TestCase):
    """What gets through to the log."""

    def setUp(self):
        """Listen; afterwards be as deaf as before."""
        self.heard: list[LogEvent] = []

        @implementer(ILogObserver)
        def hear(event: LogEvent) -> None:
            self.heard.append(event)

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)
        self.addCleanup(logs.level.clearLogLevels)
        logs.level.clearLogLevels()

    def lines(self) -> list[str]:
        """Return what was heard of the speaker."""
        return [event["log_format"] for event in self.heard if event.get("test")]

    def speak(self) -> None:
        """Log a line of each level."""
        for level in (LogLevel.debug, LogLevel.info, LogLevel.warn):
            Speaker().log.emit(level, level.name, test=True)

    def test_debug_is_dropped(self):
        """Debug lines are for those who ask."""
        self.speak()
        self.assertEqual(["info", "warn"], self.lines())

    def test_verbose(self):
        """After verbose() they get through."""
        logs.verbose()
        self.speak()
        self.assertEqual(["debug", "info", "warn"], self.lines())

    def test_namespace(self):
        """A logger is named after the class it is an attribute of."""
        self.speak()
        named = {event["log_namespace"] for event in self.heard if event.get("test")}
        self.assertEqual({f"{__name__}.Speaker"}, named)
