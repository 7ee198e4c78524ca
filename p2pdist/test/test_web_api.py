"""The routes of the API: each asks or tells what the control socket does."""

from __future__ import annotations

from p2pdist import limits
from p2pdist.test.webworld import KEY, WebCase
from p2pdist.web.api import ROUTES, match


class RouteTests(WebCase):
    """Asking and telling over HTTP."""

    def test_same_answers(self):
        """What can be asked over the control socket is answered the same here."""
        self.world.run(5)
        self.assertEqual(self.control.look("status"), self.get("/api/v1/status"))
        for question in ("fleet", "pieces", "peers"):
            answer = self.get(f"/api/v1/contents/{self.key}/{question}")
            self.assertEqual(self.control.look(question, self.key), answer)
            quoted = self.key.replace(":", "%3A")
            self.assertEqual(answer, self.get(f"/api/v1/contents/{quoted}/{question}"))

    def test_limits(self):
        """Limits of the process and of one content, as the command sets them."""
        answer = self.post("/api/v1/limit", upload="10MB")
        self.assertEqual({"limits": {"upload": 10 * limits.MIB, "download": None}}, answer.json)
        self.assertEqual(10 * limits.MIB, self.service.contents.limits.upload)
        answer = self.post(f"/api/v1/contents/{self.key}/limit", download="1MB")
        self.assertEqual(limits.MIB, answer.json["limits"]["download"])
        self.assertEqual(limits.MIB, self.leech.session.limits.download)
        self.assertEqual(400, self.post("/api/v1/limit", upload="fast").status)

    def test_pause_and_resume(self):
        """A content stops and goes on."""
        self.assertEqual(200, self.post(f"/api/v1/contents/{self.key}/pause").status)
        (paused,) = self.get("/api/v1/status")["paused"]
        self.assertEqual(self.key, paused["hash_key"])
        self.assertEqual(404, self.ask("GET", f"/api/v1/contents/{self.key}/fleet", KEY).status)
        self.assertEqual(200, self.post(f"/api/v1/contents/{self.key}/resume").status)
        self.assertEqual(400, self.post(f"/api/v1/contents/{self.key}/resume").status)
        self.assertEqual([], self.get("/api/v1/status")["paused"])

    def test_add_and_remove(self):
        """A content is added by its link, and removed; its files are not touched."""
        link = "p2pdist:b3:" + "1" * 64
        answer = self.post("/api/v1/contents", link=link)
        self.assertEqual((200, link[8:]), (answer.status, answer.json["hash_key"]))
        self.assertEqual(2, len(self.service.contents.sessions))
        self.assertEqual(200, self.post(f"/api/v1/contents/{link[8:]}/remove").status)
        self.assertEqual(1, len(self.service.contents.sessions))
        self.assertEqual(404, self.post(f"/api/v1/contents/{link[8:]}/remove").status)

    def test_unknown(self):
        """What is not there is not found; contents are named by their whole key."""
        for path in (
            "/api/v1",
            "/api/v1/",
            "/api/v2/status",
            "/api/v1/contents/b3:0/fleet",
            "/api/v1/contents/model.bin/fleet",
            f"/api/v1/contents/b3:{'0' * 64}/fleet",
            f"/api/v1/contents/{self.key}",
            f"/api/v1/contents/{self.key}/fleet/",
            "/api/v1/contents/{content}/fleet",
            "/api/v1/events?content=model.bin",
        ):
            self.assertEqual(404, self.ask("GET", path, KEY).status, path)

    def test_late_answer(self):
        """Whoever hangs up before the answer is there misses nothing but the answer."""
        connection = self.start(
            "POST",
            f"/api/v1/contents/{self.key}/pause",
            {**KEY, "Content-Type": "application/json"},
        )
        connection.hang_up()
        self.world.run(5)
        self.assertEqual(1, len(self.service.contents.paused))

    def test_bug(self):
        """A bug of ours is one line to the asker, and a traceback in the log only."""
        self.patch(self.control, "call", lambda *_: 1 // 0)
        answer = self.ask("GET", "/api/v1/status", KEY)
        self.assertEqual(500, answer.status)
        self.assertNotIn("ZeroDivision", answer.body.decode())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_every_route_matches_itself(self):
        """No route is hidden by another."""
        for route in ROUTES:
            routes, named = match(route.path.replace("{content}", self.key))
            self.assertIs(route, routes[route.method])
            self.assertEqual({"content": self.key} if "{content}" in route.path else {}, named)
