"""Tests of the commands that ask a running node."""

from __future__ import annotations

import errno
import json
import os
import socketserver
import threading
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from p2pdist.control import socket_path
from p2pdist.errors import ConfigurationError, P2PDistError
from p2pdist.faces.cli import remote, status, wait
from p2pdist.faces.cli.main import main
from p2pdist.test.support import TestCase


def host(name: str, have: int, **more: Any) -> dict[str, Any]:
    """Return a machine of a fleet with ``have`` of four pieces."""
    return {
        "name": name,
        "node": "00" * 20,
        "complete": have == 4,
        "have_pieces": have,
        "pieces": 4,
        "download_bytes_per_s": 0 if have == 4 else 1024,
        "upload_bytes_per_s": 0,
        "why": "has everything" if have == 4 else "waits for its disk to write",
        "reason": "done",
        "state": "seeding",
        "age_s": 75.0,
        "silent": False,
        "lost": False,
        "left": False,
        **more,
    }


def fleet(*hosts: dict[str, Any]) -> dict[str, Any]:
    """Return a node's answer about its fleet."""
    return {"name": "model.bin", "hash_key": "b3:00", "length": 4096, "hosts": list(hosts)}


class CommandCase(TestCase):
    """Commands, and a node's answers made up."""

    def setUp(self):
        """Nothing was asked yet."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[dict[str, Any]] = []
        self.time = 0.0
        self.contents: list[dict[str, Any]] = []

        def ask(_remote: remote.Remote, method: str, **params: Any) -> dict[str, Any]:
            if method == "contents" or (method == "status" and "hosts" in self.answers[0]):
                return {"contents": self.contents}
            self.asked.append((method, {k: v for k, v in params.items() if v is not None}))
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

        def pause(seconds: float) -> None:
            self.time += seconds

        self.patch(remote.Remote, "ask", ask)
        self.patch(wait, "pause", pause)
        self.patch(wait, "now", lambda: self.time)

    def run_command(self, *arguments: str) -> Result:
        """Run a command to its end."""
        return CliRunner().invoke(main, arguments)


class StatusTests(CommandCase):
    """What people read."""

    def test_status(self):
        """One line for each content, and what it waits for."""
        content = {
            "name": "model.bin",
            "error": "",
            "stage": "leeching",
            "length": 1000,
            "have_bytes": 420,
            "download_bytes_per_s": 2048,
            "upload_bytes_per_s": 0,
            "eta_s": 90.0,
            "downloaded_bytes": 0,
            "hash_key": "b3:00",
            "peers": 3,
            "fleet": {"nodes": 40, "done": 7},
            "waiting_for": "a turn from 3 peers",
        }
        node = {"node": "ab" * 20, "version": "1", "port": 7667, "paused": [{"name": "other"}]}
        answer = {**node, "contents": [content]}
        self.answers = [answer, {"url": None}]
        said = self.run_command("status").output
        for words in ("42%", "7/40 machines done", "1 min 30 s left", "a turn", "other: paused"):
            self.assertIn(words, said)
        self.assertNotIn("page", said)

    def test_where_bytes_came_from(self):
        """The machines that sent most, by name where the census knows it, and the rest."""
        content = {
            "name": "model.bin",
            "error": "",
            "stage": "seeding",
            "length": 1000,
            "have_bytes": 1000,
            "download_bytes_per_s": 0,
            "upload_bytes_per_s": 0,
            "eta_s": None,
            "peers": 2,
            "fleet": {"nodes": 3, "done": 3},
            "waiting_for": "",
            "hash_key": "b3:00",
            "downloaded_bytes": 1000,
        }
        other = {**content, "name": "other", "hash_key": "b3:11"}
        node = {"node": "ab" * 20, "version": "1", "port": 7667, "paused": []}
        peers = [
            {"node": "00" * 20, "address": "10.0.0.1:7667", "received_bytes": 600},
            {"node": "11" * 20, "address": "10.0.0.2:7667", "received_bytes": 150},
            {"node": "22" * 20, "address": "10.0.0.3:7667", "received_bytes": 0},
        ]
        answers: list[dict[str, Any]] = [
            {**node, "contents": [content, other]},
            {"url": None},
            {"hash_key": "b3:00"},
            fleet(host("rack-1", 4)),
            {"peers": peers},
        ]
        self.answers = list(answers)
        said = self.run_command("status", "model.bin").output
        self.assertIn("  came from rack-1 60%, 10.0.0.2:7667 15%, others 25%\n", said)
        self.assertNotIn("other:", said)
        self.answers = [{**node, "contents": [other], "paused": [{"name": "x"}]}, {"url": None}]
        self.assertTrue(self.run_command("status", "x").output.endswith("\nx: paused\n"))
        answers[0] = {**node, "contents": [dict(content), other]}
        self.answers = list(answers)
        told = json.loads(self.run_command("status", "model.bin", "--json").output)
        self.assertEqual(
            [("rack-1", 600), ("10.0.0.2:7667", 150), (None, 250)],
            [(one["name"], one["received_bytes"]) for one in told["contents"][0]["sources"]],
        )

    def test_page(self):
        """The page's address comes last, with its key; not as JSON, which goes into logs."""
        answer = {"node": "ab" * 20, "version": "1", "port": 7667, "paused": [], "contents": []}
        page = {"url": "http://127.0.0.1:7680/#key"}
        self.answers = [answer, page]
        result = self.run_command("status")
        self.assertEqual(0, result.exit_code)
        self.assertTrue(result.output.endswith(f"page: {page['url']}\n"))
        self.answers = [answer, page]
        self.assertEqual(answer, json.loads(self.run_command("status", "--json").output))

    def test_fleet(self):
        """Stragglers come with what holds them up; names cannot steer the terminal."""
        self.answers = [fleet(host("slow\x1b[2J", 1, silent=True), host("quick", 4))]
        said = self.run_command("status", "--fleet").output
        for words in ("1/2 machines done", "25%", "waits for its disk", "silent for 1 min"):
            self.assertIn(words, said)
        self.assertNotIn("\x1b", said)
        self.assertIn("all in about 3 s", said)
        self.assertIn(" ━━━╌╌╌╌╌╌╌╌╌  25%", said)
        self.assertIn("  quick" + " " * 7 + "━━━━━━━━━━━━ done", said)

    def test_where_bytes_of_a_fleet_came_from(self):
        """Under the machines stands which of them this node's bytes came from, if it has any."""
        self.contents = [{"hash_key": "b3:00", "downloaded_bytes": 0}]
        machines = fleet(host("rack-1", 4), host("rack-2", 4, node="11" * 20))
        self.answers = [machines]
        self.assertNotIn("came from", self.run_command("status", "--fleet").output)
        self.contents[0]["downloaded_bytes"] = 1000
        peers = [{"node": "11" * 20, "address": "10.0.0.2:7667", "received_bytes": 750}]
        answers = [machines, {"contents": self.contents}, {"peers": peers}]
        self.answers = list(answers)
        said = self.run_command("status", "--fleet").output
        self.assertTrue(said.endswith("\n  what is here came from rack-2 75%, others 25%\n"), said)
        self.answers = list(answers)
        told = json.loads(self.run_command("status", "--fleet", "--json").output)["sources"]
        found = [(one["name"], one["received_bytes"]) for one in told]
        self.assertEqual([("rack-2", 750), (None, 250)], found)

    def test_lost(self):
        """A machine that crashed is called lost, and holds up no estimate."""
        crashed = host("crashed", 1, silent=True, lost=True)
        self.answers = [fleet(crashed, host("slow", 3))]
        said = self.run_command("status", "--fleet").output
        self.assertIn("0/2 machines done, 1 lost, the others in about 1 s", said)
        self.assertIn(" 25% is lost: not heard of for 1 min 15 s\n", said)
        said = self.run_command("why").output
        self.assertIn("crashed is lost: not heard of for 1 min 15 s\n  before that it waits", said)

    def test_watch(self):
        """It is shown again and again; an interrupt at any moment ends it without a word."""
        shown: list[float] = []

        def pause_or_stop(seconds: float) -> None:
            shown.append(seconds)
            if len(shown) == 3:
                self.patch(remote.Remote, "ask", interrupted)

        def interrupted(_remote: remote.Remote, _method: str, **_params: Any) -> dict[str, Any]:
            raise KeyboardInterrupt

        self.patch(status, "pause", pause_or_stop)
        self.answers = [fleet(host("slow", 1))]
        ended = self.run_command("status", "--fleet", "--watch")
        self.assertEqual((0, 3), (ended.exit_code, ended.output.count("0/1 machines done")))
        self.assertNotIn("Aborted", ended.output + ended.stderr)

    def test_long_fleets_are_cut(self):
        """Twenty machines are listed, and how many are not; --all lists them."""
        self.answers = [fleet(*[host(f"host-{n:02}", 2) for n in range(25)])]
        said = self.run_command("status", "--fleet").output
        self.assertIn("and 5 more", said)
        self.assertNotIn("host-24", said)
        self.assertIn("host-24", self.run_command("status", "--fleet", "--all").output)

    def test_several_contents(self):
        """Without a name every content is told of; for programs each is a line."""
        self.contents = [{"hash_key": "b3:01", "name": "a"}, {"hash_key": "b3:02", "name": "b"}]
        self.answers = [fleet(host("slow", 1))]
        said = self.run_command("status", "--fleet").output
        self.assertEqual(2, said.count("model.bin: 0/1 machines done"))
        self.assertEqual(["b3:01", "b3:02"], [params["content"] for _, params in self.asked])
        for command in (("status", "--fleet"), ("why",)):
            lines = self.run_command(*command, "--json").stdout.splitlines()
            self.assertEqual([1, 1], [len(json.loads(line)["hosts"]) for line in lines])
        self.assertIn("model.bin: slow waits for its disk", self.run_command("why").output)
        self.asked = []
        self.run_command("why", "a")
        self.assertEqual([("fleet", {"content": "a"})], self.asked)

    def test_machines_of_one_name(self):
        """They are told apart by their node ids."""
        twins = (host("vm", 1, node="ab" * 20), host("vm", 4, node="cd" * 20), host("x", 4))
        self.answers = [fleet(*twins)]
        said = self.run_command("status", "--fleet").output
        self.assertIn("  vm (abababab) ", said)
        self.assertRegex(said, r"  vm \(cdcdcdcd\) ━+ done\n  x {13}━+ done")
        self.assertIn("vm (abababab) waits for its disk", self.run_command("why").output)

    def test_why(self):
        """A sentence for each machine that is not done."""
        self.answers = [fleet(host("slow", 1), host("quick", 4))]
        self.assertEqual("slow waits for its disk to write\n", self.run_command("why").output)
        self.answers = [fleet(host("quick", 4))]
        self.assertIn("everybody known is done", self.run_command("why").output)


class WaitTests(CommandCase):
    """Waiting for others."""

    def test_nodes(self):
        """It ends with 0 once so many are done, and asks again until then."""
        early, late = fleet(host("a", 4), host("b", 3)), fleet(host("a", 4), host("b", 4))
        self.answers = [early, early, late]
        result = self.run_command("wait", "--nodes", "2")
        self.assertEqual(0, result.exit_code, result.output)
        self.assertEqual(3, len(self.asked))

    def test_stragglers(self):
        """When the time is over it ends with 6 and names who is not done, or not even known."""
        self.answers = [fleet(host("a", 4), host("b", 3))]
        result = self.run_command("wait", "--nodes", "4", "--timeout", "3")
        self.assertEqual(6, result.exit_code)
        self.assertIn("b (waits for its disk to write), 2 that nobody has heard", result.output)

    def test_several_contents(self):
        """Without a name all of them have to be everywhere; who lacks what is told of each."""
        self.contents = [{"hash_key": "b3:01", "name": "a"}, {"hash_key": "b3:02", "name": "b"}]
        done = fleet(host("a", 4), host("b", 4))
        late = {**fleet(host("a", 4), host("b", 3)), "name": "images"}
        self.answers = [done, late]
        result = self.run_command("wait", "--nodes", "2", "--timeout", "0", "--json")
        self.assertEqual(6, result.exit_code)
        self.assertIn("not done after 0 s: images: b (waits for its disk", result.stderr)
        self.assertEqual(
            [
                {"name": "model.bin", "done": 2, "missing": []},
                {"name": "images", "done": 1, "missing": ["b"]},
            ],
            [json.loads(line) for line in result.stdout.splitlines()],
        )
        self.answers = [done, late, done, done]
        result = self.run_command("wait", "--all")
        self.assertEqual((0, 6), (result.exit_code, len(self.asked)))
        self.assertIn("model.bin: 2 machines are done\n", result.output)

    def test_names(self):
        """Only the named count, and one that nobody bears is missing."""
        file = Path(self.mktemp())
        file.write_text("a\n# all but b\n\nc  # new\n")
        self.answers = [fleet(host("a", 4), host("b", 0))]
        result = self.run_command("wait", "--names", str(file), "--timeout", "1")
        self.assertEqual(6, result.exit_code)
        self.assertIn(": c", result.output)
        self.answers = [fleet(host("a", 4), host("c", 4), host("b", 0))]
        self.assertEqual(0, self.run_command("wait", "--names", str(file)).exit_code)

    def test_all(self):
        """Everybody known; who left does not count, unless it was done."""
        self.answers = [fleet(host("a", 4), host("b", 0, left=True), host("c", 4, left=True))]
        self.assertEqual(0, self.run_command("wait", "--all").exit_code)
        self.assertEqual(0, self.run_command("wait", "--nodes", "2").exit_code)
        said = self.run_command("status", "--fleet").output
        self.assertIn("2/2 machines done", said)
        self.assertRegex(said, r"c ━+ done, left\n")

    def test_all_but_the_hopeless(self):
        """With --all nobody is waited for in vain: lost, failed and paused are named at once."""
        lost, failed = host("b", 1, silent=True, lost=True), host("c", 2, state="failed")
        stuck = fleet(host("a", 4), lost, failed, host("p", 2, state="paused"))
        self.answers = [fleet(host("a", 4), host("d", 3), lost), stuck]
        result = self.run_command("wait", "--all", "--json")
        self.assertEqual(6, result.exit_code)
        self.assertEqual(2, len(self.asked), "while one goes on, it waits")
        told = {"name": "model.bin", "done": 1, "missing": ["b", "c", "p"]}
        self.assertEqual(told, json.loads(result.stdout))
        self.assertIn("b (is lost: not heard of for 1 min 15 s), c (waits for", result.stderr)
        result = self.run_command("wait", "--nodes", "2", "--timeout", "2")
        self.assertEqual(6, result.exit_code)
        self.assertIn("not done after 2 s: b (is lost", result.output, "they may come again")

    def test_who_must_be_said(self):
        """Without or with two goals it is refused."""
        for goals in ((), ("--all", "--nodes", "3")):
            result = self.run_command("wait", *goals)
            self.assertEqual(2, result.exit_code)
            self.assertIn("--names FILE", result.output)

    def test_timeout_is_a_number(self):
        """One that is none would never be over."""
        self.assertEqual(2, self.run_command("wait", "--all", "--timeout", "nan").exit_code)


class TellTests(CommandCase):
    """Telling a node what to do."""

    def test_commands(self):
        """Each command asks for what it says."""
        rates = {"upload": 1024, "download": None}
        self.answers = [{"name": "model.bin", "limits": rates, "receive": "p2pdist get x.desc"}]
        for arguments, asked in (
            (("remove", "model.bin"), ("remove", {"content": "model.bin"})),
            (("pause",), ("pause", {})),
            (("resume", "b3:0123"), ("resume", {"content": "b3:0123"})),
            (("limit", "--upload", "1K"), ("limit", {"upload": "1K"})),
            (("add", "p2pdist:b3:00"), ("add", {"descriptor": "p2pdist:b3:00"})),
            (("add", "/x/y.desc"), ("add", {"descriptor": "/x/y.desc"})),
        ):
            result = self.run_command(*arguments)
            self.assertEqual(0, result.exit_code, result.output)
            self.assertEqual(asked, self.asked[-1])
        self.assertIn(
            "upload 1.0 KiB/s, download unlimited",
            self.run_command("limit", "--upload", "1K").output,
        )
        self.assertEqual(2, self.run_command("limit").exit_code)
        said = self.run_command("add", "x.desc").output
        self.assertTrue(said.endswith("elsewhere: p2pdist get x.desc\n"), said)


class SocketTests(TestCase):
    """The socket between command and node."""

    def serve(self, answer: bytes) -> remote.Remote:
        """Return a node that gives one answer to everybody."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        heard: list[bytes] = []

        class Answering(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                heard.append(self.rfile.readline())
                self.wfile.write(answer)

        path = socket_path(str(folder))
        server = socketserver.UnixStreamServer(path, Answering)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.heard = heard
        return remote.Remote(str(folder))

    def test_question_and_answer(self):
        """What is asked arrives as one line of JSON, and the result comes back."""
        node = self.serve(b'{"result": {"name": "x"}}\n')
        self.assertEqual({"name": "x"}, node.ask("fleet", content="x", other=None))
        self.assertEqual({"method": "fleet", "params": {"content": "x"}}, json.loads(self.heard[0]))

    def test_refusal(self):
        """An error keeps its message and its exit code."""
        for code in (1, 2, 4):
            text = json.dumps({"error": {"code": code, "message": "no"}})
            node = self.serve(text.encode() + b"\n")
            error = self.assertRaises(P2PDistError, node.ask, "add")
            self.assertEqual((code, "no"), (error.exit_code, str(error)))

    def test_nobody_there(self):
        """Without a node the error says which option names another one."""
        node = remote.Remote(self.mktemp())
        error = self.assertRaises(remote.NotRunning, node.ask, "status")
        self.assertIn("--state-dir", str(error))

    def test_another_user(self):
        """Who may not ask is told as whom to do it."""

        def refuse(_path: str) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(remote, "short_way", refuse)
        error = self.assertRaises(ConfigurationError, remote.Remote("/s").ask, "status")
        self.assertIn(f"for user {os.getuid()}; run it as the node's user", str(error))

    def test_half_an_answer(self):
        """A node that hangs up, or answers nonsense, is an error too."""
        for text in (b"", b'{"result"', b"nonsense\n"):
            node = self.serve(text)
            self.assertRaises(remote.NotRunning, node.ask, "status")
