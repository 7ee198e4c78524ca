"""Attacks on the page's port: W1 to W6 of docs/page.md, each refused, for static files too."""

from __future__ import annotations

import json

from p2pdist import limits
from p2pdist.logs import new_logger
from p2pdist.test.webworld import HOST, JSON, KEY, PORT, TOKEN, WebCase, events
from p2pdist.web.guard import HEADERS
from p2pdist.web.service import load_assets

STATIC = tuple(load_assets())
READS = (*STATIC, "/api/v1/status", "/api/v1/events", "/api/v1/log", "/metrics")
POLICY = {
    *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:"),
    *("connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
}
LIMIT = json.dumps({"upload": "1MB"}).encode()


class AttackTests(WebCase):
    """What other sites, other users and broken clients send."""

    def limited(self) -> bool:
        """Tell whether somebody managed to set a limit."""
        return self.service.contents.limits.upload is not None

    def test_w1_rebinding(self):
        """W1: under any other name nothing is served, not even a static file or with the key."""
        names = ("evil.example", f"evil.example:{PORT}", f"127.0.0.1.evil.example:{PORT}", "")
        for path in READS:
            for name in names:
                answer = self.ask("GET", path, {"Host": name, **KEY})
                self.assertEqual(421, answer.status, (path, name))
        twice = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: evil.example\r\n\r\n"
        for raw in (twice, "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"):
            self.assertIn(self.raw(raw.encode()).status, {400, 421})

    def test_w1_absolute_target(self):
        """W1: a target with a host of its own is no path here."""
        answer = self.ask("GET", f"http://evil.example:{PORT}/", KEY)
        self.assertEqual(404, answer.status)

    def test_w2_other_origins(self):
        """W2: what another origin's page sends is refused, reads and writes, static files too."""
        for path in READS:
            for headers in (
                {"Origin": "http://evil.example"},
                {"Origin": "null"},
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
            ):
                answer = self.ask("GET", path, {**KEY, **headers})
                self.assertEqual(403, answer.status, (path, headers))
        told = {**KEY, **JSON, "Origin": "http://evil.example"}
        self.assertEqual(403, self.ask("POST", "/api/v1/limit", told, LIMIT).status)
        self.assertFalse(self.limited())

    def test_w2_forms(self):
        """W2: a body that a form can send changes nothing, even with the key."""
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ):
            headers = {**KEY, "Content-Type": kind}
            answer = self.ask("POST", "/api/v1/limit", headers, LIMIT)
            self.assertIn(answer.status, {400, 415})
        self.assertEqual(415, self.ask("POST", "/api/v1/limit", KEY, LIMIT).status)
        self.assertFalse(self.limited())

    def test_w2_preflight(self):
        """W2: no preflight is answered, and no answer ever allows another origin."""
        headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        answers = [self.ask("OPTIONS", path, headers) for path in READS]
        answers += [self.ask("OPTIONS", path) for path in READS]
        self.assertEqual({403}, {answer.status for answer in answers})
        answers += [self.ask("GET", "/"), self.ask("GET", "/api/v1/status", KEY)]
        for answer in answers:
            self.assertFalse([name for name in answer.headers if name.startswith("access-control")])

    def test_w2_reading_changes_nothing(self):
        """W2: what changes something cannot be got by GET, and other methods do not exist."""
        for path in ("/api/v1/limit", "/api/v1/contents", f"/api/v1/contents/{self.key}/pause"):
            self.assertEqual(405, self.ask("GET", path, KEY).status)
        for method in ("PUT", "DELETE", "PATCH", "HEAD", "TRACE", "CONNECT"):
            self.assertEqual(405, self.ask(method, "/api/v1/status", KEY).status)
        for path in (*STATIC, "/metrics", "/api/v1/events", "/api/v1/status"):
            self.assertEqual(405, self.ask("POST", path, {**KEY, **JSON}, b"{}").status)

    def test_w3_no_key(self):
        """W3: without the right key there is nothing but the empty page, in query or cookie too."""
        for path in READS[len(STATIC) :]:
            for headers in (
                {},
                {"Authorization": "Bearer "},
                {"Authorization": f"Bearer {TOKEN[:-1]}"},
                {"Authorization": f"Basic {TOKEN}"},
                {"Cookie": f"token={TOKEN}"},
            ):
                self.reactor.advance(60)
                self.assertEqual(401, self.ask("GET", path, headers).status, (path, headers))
            self.reactor.advance(60)
            self.assertEqual(401, self.ask("GET", f"{path}?token={TOKEN}").status)
        self.assertEqual(401, self.ask("POST", "/api/v1/limit", JSON, LIMIT).status)
        self.assertFalse(self.limited())
        for path in STATIC:
            self.assertNotIn(TOKEN.encode(), self.ask("GET", path).body)

    def test_w3_guessing_is_slow(self):
        """W3: after some wrong keys each further one is answered a second later."""
        for _ in range(limits.WEB_KEY_FAILURES):
            self.assertEqual(401, self.ask("GET", "/metrics").status)
        late = self.start("GET", "/metrics")
        self.assertEqual(b"", late.wire.value())
        self.reactor.advance(limits.WEB_KEY_DELAY_S)
        self.assertEqual(401, late.answer().status)
        gone = self.start("GET", "/metrics")
        gone.hang_up()
        self.reactor.advance(limits.WEB_KEY_DELAY_S)

    def test_w4_script_in_a_name(self):
        """W4: names from strangers travel as JSON, and no script runs but files of ours."""
        new_logger().info("{name}", name="<script>alert(1)</script>")
        for answer in (self.ask("GET", "/api/v1/log", KEY), self.ask("GET", "/")):
            policy = answer.headers["content-security-policy"]
            self.assertIn("default-src 'none'; script-src 'self'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual("nosniff", answer.headers["x-content-type-options"])
        self.assertEqual(
            "application/json", self.ask("GET", "/api/v1/log", KEY).headers["content-type"]
        )
        for path, (kind, data) in load_assets().items():
            text = data.decode()
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
                self.assertNotIn(word, text, path)
            if kind.startswith("text/html"):
                self.assertNotRegex(
                    text, r"<script(?![^>]*\bsrc=)[^>]*>|\son\w+=|\sstyle=|https?://"
                )

    def test_w5_traversal(self):
        """W5: only the few files of the page are there, however a path is written."""
        for path in (
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/..%2fservice.py",
            "//etc/passwd",
            "/page.js/../../service.py",
            "/assets/page.js",
            "/page.js%00.html",
            "/web-token",
            "/%70age.js",
            "/page.js/",
        ):
            self.reactor.advance(60)
            self.assertEqual(401, self.ask("GET", path).status, path)
            self.assertEqual(404, self.ask("GET", path, KEY).status, path)

    def test_w5_no_file_is_named(self):
        """W5: no request can name a file: contents are added by link only."""
        for link in ("/etc/passwd", "model.desc", "file:///etc/passwd", 5, None, ["p2pdist:"]):
            answer = self.post("/api/v1/contents", link=link)
            self.assertEqual(400, answer.status, link)
        answer = self.post("/api/v1/contents", link="p2pdist:b3:" + "1" * 64, path="/etc/passwd")
        self.assertEqual(400, answer.status)
        self.assertEqual(400, self.post("/api/v1/contents", descriptor="/etc/passwd").status)
        self.assertEqual(1, len(self.service.contents.sessions))

    def test_w6_framing_and_streams(self):
        """W6: no other site can frame the page, load its files, or read its stream."""
        told = self.ask("GET", "/").headers
        self.assertEqual(POLICY, set(told["content-security-policy"].split("; ")))
        for header, wanted in (
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ):
            self.assertEqual(wanted, told[header])
        for path in READS:
            headers = self.start("GET", path, KEY).answer().headers
            for name, value in HEADERS.items():
                self.assertEqual(value.decode(), headers[name.decode().lower()], path)
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            self.assertEqual(403, self.ask("GET", "/api/v1/events", {**KEY, **headers}).status)
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": "http://evil.example"}
        self.assertEqual(403, self.ask("GET", "/api/v1/events", {**KEY, **upgrade}).status)

    def test_refusals_carry_the_headers(self):
        """Every refusal has the same headers, and ends its connection."""
        for path, headers, status in (
            ("/", {"Host": "evil.example"}, 421),
            ("/", {"Origin": "null"}, 403),
            ("/metrics", {}, 401),
            ("/nothing", KEY, 404),
        ):
            connection = self.start("GET", path, headers)
            answer = connection.answer()
            self.assertEqual(status, answer.status)
            self.assertEqual("close", answer.headers["connection"])
            self.assertTrue(connection.wire.disconnecting)
            for name, value in HEADERS.items():
                self.assertEqual(value.decode(), answer.headers[name.decode().lower()])


class SizeTests(WebCase):
    """Requests that are too large, too slow or too many."""

    def test_body(self):
        """A body has at most WEB_BODY_BYTES, announced or in chunks; the connection ends there."""
        head = f"POST /api/v1/limit HTTP/1.1\r\nHost: {HOST}\r\n"
        body = b"x" * (limits.WEB_BODY_BYTES + 1)
        plain = self.connect()
        plain.send(f"{head}Content-Length: {10**9}\r\n\r\n".encode() + body)
        chunked = self.connect()
        chunk = b"%x\r\n" % len(body) + body + b"\r\n"
        chunked.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk)
        for connection in (plain, chunked):
            self.assertEqual(413, connection.answer().status)
            self.assertTrue(connection.wire.disconnecting)
        chunked.send(chunk + b"0\r\n\r\n")
        self.assertEqual(1, chunked.wire.value().count(b"HTTP/1.1"))
        fits = {**KEY, **JSON}
        answer = self.ask("POST", "/api/v1/limit", fits, b" " * (limits.WEB_BODY_BYTES - 2) + b"{}")
        self.assertEqual(200, answer.status)

    def test_nonsense_bodies(self):
        """A body that is no object is refused."""
        for body in (b"{", b"[]", b"5", b"[" * 60_000, b'{"rate": 1}', b'{"upload": 5}', b"\xff"):
            answer = self.ask("POST", "/api/v1/limit", {**KEY, **JSON}, body)
            self.assertEqual(400, answer.status, body[:9])
            self.assertTrue(answer.json["error"]["message"])

    def test_connections(self):
        """Beyond WEB_CONNECTIONS at a time they are refused; one that ended makes room."""
        open_ones = [self.connect() for _ in range(limits.WEB_CONNECTIONS)]
        self.assertTrue(self.connect().refused)
        open_ones[0].hang_up()
        self.assertFalse(self.connect().refused)

    def test_silence(self):
        """A connection that says nothing, or not all, for WEB_IDLE_S is closed; a stream is not."""
        silent, half = self.connect(), self.connect()
        half.send(b"GET / HTTP/1.1\r\nHo")
        stream = self.start("GET", "/api/v1/events", KEY)
        self.reactor.pump([limits.WEB_IDLE_S / 10] * 11)
        self.assertTrue(silent.wire.disconnecting)
        self.assertTrue(half.wire.disconnecting)
        self.assertFalse(stream.wire.disconnecting)
        self.assertGreater(len(events(stream.answer().body)), 4)
