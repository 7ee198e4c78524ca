"""The rules of who may ask, as a table."""

from __future__ import annotations

from attrs import evolve

from p2pdist import limits
from p2pdist.test.support import TestCase
from p2pdist.web.guard import Head, Patience, is_json, knows, names_of, stranger

NAMES = names_of(7680)
GOOD = Head(method=b"GET", hosts=(b"127.0.0.1:7680",))


class StrangerTests(TestCase):
    """Requests that are refused whatever they ask for."""

    def test_names(self):
        """The page is 127.0.0.1, localhost and [::1] on its port, in any case, and nothing else."""
        for host in (b"127.0.0.1:7680", b"localhost:7680", b"LOCALHOST:7680", b"[::1]:7680"):
            self.assertIsNone(stranger(evolve(GOOD, hosts=(host,)), NAMES))
        for hosts in (
            (),
            (b"",),
            (b"127.0.0.1",),
            (b"127.0.0.1:80",),
            (b"evil.example:7680",),
            (b"127.0.0.1.evil.example:7680",),
            (b"127.0.0.1:7680", b"127.0.0.1:7680"),
            (b"127.0.0.1:7680, evil.example",),
            (b"0.0.0.0:7680",),
        ):
            self.assertEqual(421, stranger(evolve(GOOD, hosts=hosts), NAMES), hosts)

    def test_port_80_needs_no_number(self):
        """On HTTP's own port browsers leave the number out."""
        self.assertIsNone(stranger(evolve(GOOD, hosts=(b"localhost",)), names_of(80)))

    def test_origins(self):
        """Origin, if there is one, is the page's own; the method does not matter."""
        own = b"http://127.0.0.1:7680"
        self.assertIsNone(stranger(evolve(GOOD, origins=(own,)), NAMES))
        for origins in (
            (b"null",),
            (b"http://evil.example",),
            (b"http://localhost:7680",),
            (b"https://127.0.0.1:7680",),
            (own, b"http://evil.example"),
        ):
            self.assertEqual(403, stranger(evolve(GOOD, origins=origins), NAMES), origins)

    def test_sites(self):
        """What a browser says was sent by another site is refused."""
        for site, refusal in (
            (b"none", None),
            (b"same-origin", None),
            (b"same-site", 403),
            (b"cross-site", 403),
        ):
            self.assertEqual(refusal, stranger(evolve(GOOD, sites=(site,)), NAMES))

    def test_methods(self):
        """There are GET and POST; no preflight is ever answered."""
        for method, refusal in (
            (b"POST", None),
            (b"OPTIONS", 403),
            (b"DELETE", 405),
            (b"get", 405),
        ):
            self.assertEqual(refusal, stranger(evolve(GOOD, method=method), NAMES))


class KeyTests(TestCase):
    """The key."""

    def test_key(self):
        """It is a bearer token, given once."""
        for given, expected in (
            ((b"Bearer abc",), True),
            ((b"Bearer abd",), False),
            ((b"abc",), False),
            ((b"Basic abc",), False),
            ((), False),
            ((b"Bearer abc", b"Bearer abc"), False),
            ((b"Bearer \xff",), False),
        ):
            self.assertEqual(expected, knows(evolve(GOOD, authorizations=given), "abc"))

    def test_patience(self):
        """After WEB_KEY_FAILURES wrong keys in a minute each further one is answered late."""
        patience = Patience()
        for number in range(limits.WEB_KEY_FAILURES):
            self.assertEqual(0.0, patience.failed(float(number)))
        self.assertEqual(limits.WEB_KEY_DELAY_S, patience.failed(11.0))
        self.assertEqual(0.0, patience.failed(120.0))

    def test_json(self):
        """Only a body that says it is JSON counts: a form of another site cannot say so."""
        for types, expected in (
            ((b"application/json",), True),
            ((b"application/JSON; charset=utf-8",), True),
            ((b"text/plain",), False),
            ((b"application/x-www-form-urlencoded",), False),
            ((), False),
        ):
            self.assertEqual(expected, is_json(evolve(GOOD, types=types)))
