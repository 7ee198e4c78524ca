"""The page's port: where it listens, what it says of itself, that nothing is left of it."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs

from p2pdist import limits
from p2pdist.errors import ConfigurationError
from p2pdist.test.support import TestCase
from p2pdist.test.test_tidy import TREE
from p2pdist.test.webworld import KEY, PORT, TOKEN, WebCase, events
from p2pdist.web.service import WebService


class Taken(MemoryReactorClock):
    """A reactor on which some addresses cannot be listened on."""

    def __init__(self, *addresses: str) -> None:
        super().__init__()
        self.taken = addresses

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """Refuse, or listen."""
        if interface in self.taken:
            raise CannotListenError(interface, port, OSError(errno.EADDRINUSE, "in use"))
        return super().listenTCP(port, factory, backlog, interface)


class ServiceTests(WebCase):
    """Starting and stopping."""

    def test_loopback_only(self):
        """The port is open on the two loopback addresses of this machine and no other."""
        self.assertEqual(
            [("127.0.0.1", PORT), ("::1", PORT)],
            [(server[3], server[0]) for server in self.reactor.tcpServers],
        )

    def test_without_ipv6(self):
        """A machine without IPv6 has its page on IPv4; a taken port is one clear error."""
        web = WebService(Taken("::1"), self.control, PORT, TOKEN)
        web.bind()
        web = WebService(Taken("127.0.0.1"), self.control, PORT, TOKEN)
        error = self.assertRaises(ConfigurationError, web.bind)
        self.assertIn(f"--web {PORT}", str(error))

    def test_key_is_not_logged(self):
        """The log says where the page is, and not with which key; the owner's command does."""
        with capturedLogs() as events:
            WebService(MemoryReactorClock(), self.control, PORT, TOKEN).bind()
        texts = [str(event) for event in events if event["log_level"] is LogLevel.info]
        self.assertTrue(any(f"127.0.0.1:{PORT}" in text or str(PORT) in text for text in texts))
        self.assertFalse(any(TOKEN in text for text in texts))
        self.assertEqual({"url": f"http://127.0.0.1:{PORT}/#{TOKEN}"}, self.control.look("page"))
        self.assertNotIn(TOKEN, str(self.control.look("status")))

    def test_rates_are_sampled(self):
        """Rates are kept while no page is open, every WEB_SAMPLE_S."""
        self.reactor.pump([limits.WEB_SAMPLE_S] * 3)
        self.assertEqual(4, len(self.get("/api/v1/rates")["samples"]))

    def test_stop(self):
        """After the stop there is no timer, no open port, no open stream, and no address."""
        stream = self.start("GET", "/api/v1/events", KEY)
        for _ in range(limits.WEB_KEY_FAILURES + 2):
            self.start("GET", "/metrics").hang_up()
        self.world.wait_for(self.web.stopService())
        self.assertTrue(stream.wire.aborted)
        stream.hang_up()
        self.assertEqual([], self.reactor.getDelayedCalls())
        count = self.web.log_lines.count
        self.control.log.info("after the end")
        self.assertEqual(count, self.web.log_lines.count)
        self.assertEqual({"url": None}, self.control.look("page"))
        self.world.wait_for(self.web.stopService())

    def test_streams_are_bounded(self):
        """WEB_READERS pages can be open at a time; another is told, and a closed one makes room."""
        open_ones = [self.start("GET", "/api/v1/events", KEY) for _ in range(limits.WEB_READERS)]
        self.assertEqual({200}, {stream.answer().status for stream in open_ones})
        self.assertEqual(503, self.ask("GET", "/api/v1/events", KEY).status)
        open_ones[0].hang_up()
        self.assertEqual(200, self.ask("GET", "/api/v1/events", KEY).status)

    def test_buttons_show_at_once(self):
        """What a button did is told to open pages without waiting for the next second."""
        stream = self.start("GET", "/api/v1/events", KEY)
        self.assertEqual(200, self.post("/api/v1/limit", upload="5MB").status)
        self.reactor.advance(0)
        told = [value["patch"] for name, value in events(stream.answer().body) if name == "state"]
        self.assertEqual({"upload": 5 * limits.MIB}, told[-1]["node"]["limits"])

    def test_slow_reader(self):
        """A page that does not read is dropped, once WEB_BACKLOG_BYTES wait for it."""
        stream = self.start("GET", "/api/v1/events", KEY)
        assert stream.wire.producer is not None
        stream.wire.producer.pauseProducing()
        before = len(stream.wire.value())
        for _ in range(20):
            self.control.log.info("{x}", x="x" * limits.WEB_LOG_CHARACTERS)
        self.reactor.advance(limits.WEB_EVERY_S)
        self.assertEqual(before, len(stream.wire.value()))
        while not stream.wire.aborted:
            for _ in range(limits.WEB_LOG_LINES):
                self.control.log.info("{x}", x="x" * limits.WEB_LOG_CHARACTERS)
            self.reactor.advance(limits.WEB_EVERY_S)
        self.assertEqual(before, len(stream.wire.value()))


class StartTests(TestCase):
    """What a node without a page pays for it."""

    def test_nothing_is_loaded(self):
        """Without --web neither the page's code nor Prometheus' is imported."""
        code = "import sys, p2pdist.faces.tap; print(*sys.modules)"
        loaded = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TREE
        ).stdout.split()
        heavy = ("prometheus_client", "twisted.web", "p2pdist.web")
        self.assertEqual([], [name for name in loaded if name.startswith(heavy)])
        self.assertIn("p2pdist.control", loaded)
