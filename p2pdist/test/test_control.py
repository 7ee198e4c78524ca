"""Tests of what a running node can be asked and told."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.internet.testing import StringTransport

from p2pdist import limits
from p2pdist.control import Control, ControlFactory, ControlProtocol
from p2pdist.descriptor import DescriptorParser
from p2pdist.stages import Stage
from p2pdist.test.pairworld import PairCase
from p2pdist.test.servicesworld import pointing


class ControlCase(PairCase):
    """The downloader under control, and how it is asked."""

    def answer(self, line: bytes) -> dict[str, Any]:
        """Return what is answered to one line."""
        answer: dict[str, Any] = self.world.wait_for(self.control.answer(line))
        json.dumps(answer)
        return answer

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of a request."""
        answer = self.answer(json.dumps({"method": method, "params": params}).encode())
        self.assertNotIn("error", answer)
        result: dict[str, Any] = answer["result"]
        return result

    def refusal(self, method: str, **params: Any) -> tuple[int, str]:
        """Return code and message of a refused request."""
        answer = self.answer(json.dumps({"method": method, "params": params}).encode())
        return answer["error"]["code"], answer["error"]["message"]


class AskingTests(ControlCase):
    """What a node says of itself and its fleet."""

    def test_status(self):
        """One content from its beginning to its end, with how many machines are done."""
        (content,) = self.ask("status")["contents"]
        self.assertEqual("checking", content["stage"])
        self.finish()
        status = self.ask("status")
        self.assertEqual(self.service.node_id.hex(), status["node"])
        (content,) = status["contents"]
        self.assertEqual(
            ("seeding", content["length"], {"nodes": 2, "done": 2}),
            (content["stage"], content["have_bytes"], content["fleet"]),
        )

    def test_fleet(self):
        """Both machines, by name, with what they have; at the seed just the same."""
        self.finish()
        hosts = self.ask("fleet")["hosts"]
        self.assertEqual(["leech-host", "seed-host"], sorted(host["name"] for host in hosts))
        self.assertEqual([True, True], [host["complete"] for host in hosts])
        self.assertEqual(["done", "done"], [host["reason"] for host in hosts])
        assert self.seed.service is not None
        self.control = Control(self.seed.service, DescriptorParser())
        there = self.ask("fleet")["hosts"]
        self.assertEqual(
            [(host["name"], host["complete"]) for host in hosts],
            [(host["name"], host["complete"]) for host in there],
        )

    def test_done_means_published(self):
        """A node whose pieces are all verified but not under their final name is not done."""
        self.leech.stop()
        descriptor = evolve(pointing(self.made, self.seed), sha256="0" * 64)
        self.service = self.leech.run(descriptor, name="leech-host")
        self.control = Control(self.service, DescriptorParser())
        self.world.run_until(lambda: self.leech.session.stage is Stage.FAILED, timeout=60)
        self.world.run(3)
        (host,) = (host for host in self.ask("fleet")["hosts"] if host["name"] == "leech-host")
        self.assertEqual(host["pieces"], host["have_pieces"])
        self.assertEqual(("failed", False), (host["state"], host["complete"]))
        self.assertEqual({"nodes": 2, "done": 1}, self.ask("status")["contents"][0]["fleet"])

    def test_who_left_says_so(self):
        """A node that is stopped is gone at once; who was done when it left stays done."""
        self.finish()
        self.seed.stop()
        self.world.run(1)
        left = {host["name"]: host["left"] for host in self.ask("fleet")["hosts"]}
        self.assertEqual({"seed-host": True, "leech-host": False}, left)
        self.assertEqual({"nodes": 2, "done": 2}, self.ask("status")["contents"][0]["fleet"])

    def test_nonsense(self):
        """Whatever comes is answered with an error that says what to do."""
        for line in (b"", b"{", b"[]", b'{"method": 3}', b'{"method": "status", "params": []}'):
            error = self.answer(line)["error"]
            self.assertEqual(4, error["code"])
            self.assertTrue(error["message"])
        self.assertEqual(4, self.answer(b"[" * 100_000)["error"]["code"])

    def test_which_content(self):
        """A content is named by its name or by its key's first digits; a wrong name is told."""
        (content,) = self.ask("status")["contents"]
        (named,) = self.ask("contents")["contents"]
        self.assertEqual((content["name"], content["hash_key"]), (named["name"], named["hash_key"]))
        self.assertEqual(content["name"], self.ask("fleet", content=content["name"])["name"])
        self.assertEqual(
            content["name"], self.ask("fleet", content=content["hash_key"][:12])["name"]
        )
        code, message = self.refusal("fleet", content="nothing")
        self.assertEqual(4, code)
        self.assertIn(content["name"], message)


class TellingTests(ControlCase):
    """What a node can be told."""

    def test_limits(self):
        """The speed limits of the process and of one content change at once."""
        self.assertEqual({"upload": 10 * limits.MIB, "download": None}, self.limit(upload="10MB"))
        self.assertEqual(10 * limits.MIB, self.service.contents.limits.upload)
        name = self.ask("status")["contents"][0]["name"]
        self.assertEqual(
            {"upload": None, "download": limits.MIB}, self.limit(download="1M", content=name)
        )
        self.assertEqual(limits.MIB, self.leech.session.limits.download)
        self.assertEqual({"upload": None, "download": None}, self.limit(upload="none"))
        code, message = self.refusal("limit", upload="fast")
        self.assertEqual(4, code)
        self.assertTrue(message.startswith("upload 'fast': expected a speed"), message)

    def limit(self, **params: str) -> dict[str, Any]:
        """Set limits and return them."""
        found: dict[str, Any] = self.ask("limit", **params)["limits"]
        return found

    def test_pause_and_resume(self):
        """A paused content leaves its swarm; resumed, it goes on to its end."""
        self.ask("pause")
        status = self.ask("status")
        self.assertEqual([], status["contents"])
        self.assertEqual(1, len(status["paused"]))
        code, message = self.refusal("fleet")
        self.assertEqual(4, code)
        self.assertIn("resume", message)
        self.ask("resume")
        self.assertEqual([], self.ask("status")["paused"])
        self.finish()
        self.assertTrue(self.leech.holds(self.made))

    def test_remove_and_add(self):
        """A removed content is gone but for its files; added again it is complete at once."""
        self.finish()
        uri = self.leech.session.descriptor.to_uri()
        self.ask("remove")
        self.assertEqual([], self.ask("status")["contents"])
        self.assertTrue(self.leech.holds(self.made))
        added = self.ask("add", descriptor=uri)
        self.assertEqual(f"p2pdist get '{uri}'", added["receive"])
        self.finish()
        code, _ = self.refusal("add", descriptor="not-from-the-root.desc")
        self.assertEqual(4, code)
        self.assertEqual(2, self.refusal("add", descriptor="p2pdist:nonsense")[0])


class ProtocolTests(ControlCase):
    """Lines over the socket."""

    def connect(self) -> tuple[ControlProtocol, StringTransport]:
        """Return a client's protocol at the node, and what it is sent."""
        protocol, transport = self.factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def setUp(self):
        """Make the factory."""
        super().setUp()
        self.factory = ControlFactory(self.control)

    def test_requests_in_order(self):
        """Each line is answered by a line."""
        protocol, transport = self.connect()
        protocol.dataReceived(b'{"method": "status"}\n{"method": "nothing"}\n')
        first, second = transport.value().splitlines()
        self.assertIn("contents", json.loads(first)["result"])
        self.assertIn("status", json.loads(second)["error"]["message"])

    def test_long_lines(self):
        """A line beyond CONTROL_LINE_BYTES ends the connection with a word."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"x" * (limits.CONTROL_LINE_BYTES + 1))
        self.assertIn(str(limits.CONTROL_LINE_BYTES), transport.value().decode())
        self.assertTrue(transport.disconnecting)

    def test_many_clients(self):
        """Beyond CONTROL_CLIENTS at a time they are sent away; one that left makes room."""
        clients = [self.connect() for _ in range(limits.CONTROL_CLIENTS)]
        self.assertFalse(any(transport.disconnecting for _, transport in clients))
        late, transport = self.connect()
        self.assertTrue(transport.disconnecting)
        late.connectionLost()
        clients[0][0].connectionLost()
        self.assertFalse(self.connect()[1].disconnecting)
