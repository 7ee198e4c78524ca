"""Rates over time and the last lines of the log."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel

from p2pdist import limits
from p2pdist.test.support import TestCase
from p2pdist.web.history import Logbook, Rates, Sample


class RatesTests(TestCase):
    """Samples."""

    def test_bounded_and_apart(self):
        """The newest WEB_SAMPLES are kept; what comes before WEB_SAMPLE_S is over is not."""
        rates = Rates()
        for number in range(limits.WEB_SAMPLES + 3):
            rates.add(Sample(number * limits.WEB_SAMPLE_S, number, 0))
            rates.add(Sample(number * limits.WEB_SAMPLE_S + 1, 99, 99))
        rows = rates.rows()
        self.assertEqual(limits.WEB_SAMPLES, len(rows))
        self.assertEqual([3 * limits.WEB_SAMPLE_S, 3, 0], rows[0])
        self.assertNotIn(99, [row[2] for row in rows])


class LogbookTests(TestCase):
    """Lines."""

    def setUp(self):
        """Log to a book only."""
        self.book = Logbook()
        self.log = Logger(namespace="p2pdist.session", observer=self.book)

    def test_lines(self):
        """Lines of this package come with number, time, level and text; debugging does not."""
        self.log.info("{name}: complete", name="a.bin")
        self.log.debug("a message")
        self.log.warn("{x!r}", x="\x1b[31m")
        Logger(namespace="twisted.web", observer=self.book).error("not ours")
        first, second = self.book.since(0)
        self.assertEqual(
            (1, "info", "a.bin: complete"), (first["n"], first["level"], first["text"])
        )
        self.assertEqual(("warn", r"'\x1b[31m'"), (second["level"], second["text"]))
        self.assertEqual([second], self.book.since(1))

    def test_bounded(self):
        """The last WEB_LOG_LINES are kept, each WEB_LOG_CHARACTERS long at most."""
        for number in range(limits.WEB_LOG_LINES + 5):
            self.log.emit(LogLevel.info, "{n} {x}", n=number, x="x" * limits.WEB_LOG_CHARACTERS)
        lines = self.book.since(0)
        self.assertEqual(limits.WEB_LOG_LINES, len(lines))
        self.assertEqual(limits.WEB_LOG_LINES + 5, lines[-1]["n"])
        self.assertEqual({limits.WEB_LOG_CHARACTERS}, {len(line["text"]) for line in lines})
