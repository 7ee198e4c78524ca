"""The real thing: ``twistd`` and ``p2pdist`` processes on loopback. Few, because they are slow.

Nothing here sleeps: every wait is for a line of a process's log or for its end, and ends with the
test's own deadline.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.internet import reactor  # noqa: TID251 -- real processes need the real one
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

import p2pdist
from p2pdist import limits
from p2pdist.descriptor import Descriptor
from p2pdist.faces.cli.demo import Demo, DemoFailed, TwistdProcess
from p2pdist.machine import real_machine
from p2pdist.source import build_metadata, scan
from p2pdist.test.support import unmeasured

ROOT = str(Path(p2pdist.__file__).parents[1])
DEADLINE_S = 60


def command(*arguments: str) -> Deferred[tuple[bytes, bytes, int]]:
    """Run ``p2pdist``; fires with what it printed, its errors, and its exit code."""
    code = "from p2pdist.faces.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"}
    output: Deferred[tuple[bytes, bytes, int]] = getProcessOutputAndValue(
        sys.executable, ["-c", code, *arguments], environment
    )
    return output


class Leech(TwistdProcess):
    """A downloader that gets a signal in the middle.

    Args:
        name: for people.
        folder: for downloads.
        at: percent at which it does; 0 means as soon as it listens.
        by: name of the signal.
    """

    def __init__(self, name: str, folder: Path, at: int, by: str = "KILL") -> None:
        super().__init__(name, folder)
        self.at = at
        self.by = by
        self.begun_at: int | None = None

    def _read(self, line: str) -> None:
        super()._read(line)
        if self.listening.called and self.percent >= self.at and self.transport is not None:
            self.at = 101
            self.transport.signalProcess(self.by)

    def progressed(self, percent: int) -> None:
        """Note where it went on."""
        super().progressed(percent)
        self.begun_at = percent if self.begun_at is None else self.begun_at


class Talker(TwistdProcess):
    """A process whose log is waited for."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self.lines: list[str] = []
        self.waits: list[tuple[str, Deferred[None]]] = []

    def said(self, text: str) -> Deferred[None]:
        """Fire when it has logged this."""
        waiting: Deferred[None] = Deferred()
        self.waits.append((text, waiting))
        self.look()
        return waiting

    def look(self) -> None:
        """Tell who waits."""
        over = [one for one in self.waits if any(one[0] in line for line in self.lines)]
        self.waits = [one for one in self.waits if one not in over]
        for _, waiting in over:
            waiting.callback(None)

    def _read(self, line: str) -> None:
        super()._read(line)
        self.lines.append(line)
        self.look()


class Script(Talker):
    """A process that is no twistd, followed likewise."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__("script", folder)


class ProcessTests(TestCase):
    """Nodes as users run them."""

    timeout = DEADLINE_S

    def setUp(self):
        """Make a folder, and stop whatever a test starts."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.processes: list[TwistdProcess] = []

        self.addCleanup(lambda: gatherResults([process.stop() for process in self.processes]))

    def twistd(
        self, name: str, *options: str, kind: Callable[[str, Path], TwistdProcess] = TwistdProcess
    ) -> TwistdProcess:
        """Start ``twistd -n p2pdist``."""
        process = kind(name, self.folder / name)
        self.processes.append(process)
        process.start(reactor, *options)
        return process

    async def described(self, path: Path, *nodes: str) -> Path:
        """Make a descriptor with ``p2pdist make``."""
        output = self.folder / "it.desc"
        options = [option for node in nodes for option in ("--node", node)]
        out, errors, code = await command(
            "make", str(path), "--output", str(output), "--json", *options
        )
        self.assertEqual((0, b""), (code, errors))
        self.assertEqual(str(output), json.loads(out)["descriptor"])
        return output

    def short_folder(self) -> str:
        """Make a folder whose path is short enough for a socket in it."""
        path = tempfile.mkdtemp(prefix="p2pdist-")
        self.addCleanup(shutil.rmtree, path)
        return path

    def folder_of_files(self) -> Path:
        """Make a folder of 60 files: nested, one empty, one executable, one not ASCII."""
        chance = random.Random(7)
        top = self.folder / "seed" / "dataset"
        for number in range(57):
            path = top / f"part-{number % 5}" / f"deep-{number % 3}" / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(chance.randbytes(chance.randrange(30_000)))
        (top / "empty").write_bytes(b"")
        (top / "größe-数.txt").write_text("non-ASCII name")
        (top / "run.sh").write_text("#!/bin/sh\n")
        (top / "run.sh").chmod(0o755)
        return top

    async def test_folder_through_a_bootstrap_that_is_no_member(self):
        """Five twistd downloaders get a folder, and ``wait`` at one of them waits for all six.

        Every copy equals the original.
        """
        unmeasured(self)
        bootstrap = self.twistd("bootstrap")
        port = await bootstrap.listening
        top = self.folder_of_files()
        descriptor = await self.described(top, f"127.0.0.1:{port}")
        state = ("--state-dir", self.short_folder())
        seed = self.twistd("seed", "--descriptor", str(descriptor), *state)
        leeches = [
            self.twistd(f"leech-{number}", "--descriptor", str(descriptor)) for number in range(5)
        ]
        await seed.listening
        out, errors, code = await command("wait", "--nodes", "6", "--timeout", "50", *state)
        self.assertEqual((b"6 machines are done\n", 0), (out, code), errors)
        await gatherResults([process.complete for process in (seed, *leeches)])
        out, errors, code = await command("wait", "--nodes", "7", "--timeout", "0.1", *state)
        self.assertEqual(6, code)
        self.assertIn(b"1 that nobody has heard of", errors)
        for leech in leeches:
            self.assert_same_tree(top, leech.folder / "dataset")
        self.assertEqual([], [path for path in leeches[0].folder.iterdir() if "p2p" in path.name])

    def assert_same_tree(self, original: Path, copy: Path) -> None:
        """Compare names, bytes and executable bits."""
        names = sorted(path.relative_to(original) for path in original.rglob("*"))
        self.assertEqual(names, sorted(path.relative_to(copy) for path in copy.rglob("*")))
        for name in names:
            if (original / name).is_file():
                self.assertTrue(filecmp.cmp(original / name, copy / name, shallow=False), name)
                modes = [(top / name).stat().st_mode & 0o111 for top in (original, copy)]
                self.assertEqual(modes[0], modes[1], name)

    async def test_resumes_after_kills(self):
        """A downloader killed five times with SIGKILL loses nothing, stops with 0, ends right.

        What it had when it was killed it has when it is started again.
        """
        unmeasured(self)
        original, descriptor = self.small_seed("seed", 12 * limits.MIB)
        file = self.folder / "it.desc"
        file.write_text(descriptor.to_toml())
        options: tuple[str, ...] = ("--descriptor", str(file), "--no-lan")
        seed = self.twistd("seed", *options, "--upload-limit", "8MiB")
        port = await seed.listening
        await seed.complete
        options += ("--node", f"127.0.0.1:{port}")
        at, had = sorted(random.Random(7).sample(range(0, 80, 10), 5)), 0
        for percent, by in (*((percent, "KILL") for percent in at), (90, "TERM")):
            leech = self.twistd("leech", *options, kind=partial(Leech, at=percent, by=by))
            assert isinstance(leech, Leech)
            await leech.ended
            self.assertEqual(0 if by == "TERM" else -signal.SIGKILL, leech.exit_code)
            self.assertFalse((leech.folder / original.name).exists())
            if leech.begun_at is not None:
                self.assertGreaterEqual(leech.begun_at, had)
            had = leech.percent
        last = self.twistd("leech", *options)
        await last.complete
        self.assertTrue(filecmp.cmp(original, last.folder / original.name, shallow=False))

    async def test_get_seed_verify(self):
        """``get`` by link ends with 0 and an equal file; ``verify`` agrees, and notices damage."""
        bootstrap = self.twistd("bootstrap")
        port = await bootstrap.listening
        original = self.folder / "seed" / "small.bin"
        original.parent.mkdir()
        original.write_bytes(random.Random(5).randbytes(300_000))
        descriptor = await self.described(original, f"127.0.0.1:{port}")
        seed = self.twistd("seed", "--descriptor", str(descriptor))
        await seed.complete
        key = descriptor.read_text().split('hash_key = "')[1].split('"')[0]
        here = self.folder / "here"
        here.mkdir()
        out, errors, code = await command(
            *("get", f"p2pdist:{key}?n=127.0.0.1:{port}", "--directory", str(here)),
            *("--listen", "127.0.0.1", "--timeout", "50", "--json"),
        )
        self.assertEqual(0, code, errors)
        self.assertEqual(300_000, json.loads(out)["length"])
        copy = here / "small.bin"
        self.assertTrue(filecmp.cmp(original, copy, shallow=False))
        _, _, code = await command("verify", str(descriptor), "--directory", str(here))
        self.assertEqual(0, code)
        copy.write_bytes(b"?" + copy.read_bytes()[1:])
        out, _, code = await command("verify", str(descriptor), "--directory", str(here))
        self.assertEqual(1, code)

    async def test_senders_end_with_what_receivers_type(self):
        """What ``seed`` prints last fetches the content, and so does what ``get --seed`` prints."""
        path, descriptor = self.small_seed("small")
        file = self.folder / "it.desc"
        file.write_text(descriptor.to_toml())
        typed = f"p2pdist seed {file} --path {path}"
        for name in ("seed", "get"):
            sender = Script(self.folder / name)
            self.type(sender, f"{typed} --listen 127.0.0.1 --directory {self.folder / name}")
            await sender.said("elsewhere: ")
            typed = sender.lines[-1].partition("elsewhere: ")[2] + " --seed"
            self.assertIn("?n=127.0.0.1:", typed)
        self.assertTrue(filecmp.cmp(path, self.folder / "get" / path.name, shallow=False))

    def type(self, process: Script, line: str) -> None:
        """Run a ``p2pdist`` command as a shell would split it."""
        code = "from p2pdist.faces.cli.main import main; main()"
        words = [sys.executable, "-c", code, *shlex.split(line)[1:]]
        environment = {**os.environ, "PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"}
        reactor.spawnProcess(process, sys.executable, words, environment)
        self.processes.append(process)

    async def test_refusals_are_one_line(self):
        """Port in use, busy state directory and a bad descriptor: one line, the documented code."""
        running = self.twistd("running")
        port = await running.listening
        state = str(self.folder / "running.state")
        bad = self.folder / "bad.desc"
        bad.write_text("hash_key = 1\n")
        cases = (
            (("--port", str(port), "--state-dir", str(self.folder / "s2")), 4, b"port is in use"),
            (("--port", "0", "--state-dir", state), 5, b"in use by another"),
            (("--port", "0", "--descriptor", str(bad)), 2, b"bad.desc:1: hash_key"),
        )
        run = "from twisted.scripts.twistd import run; run()"
        environment = {**os.environ, "PYTHONPATH": ROOT}
        for options, code, text in cases:
            _, errors, status = await getProcessOutputAndValue(
                sys.executable,
                ["-c", run, "-n", "--pidfile=", "p2pdist", "--listen", "127.0.0.1", *options],
                environment,
            )
            self.assertEqual(code, status, errors)
            lines = [line for line in errors.splitlines() if line]
            self.assertEqual(1, len(lines), errors)
            self.assertIn(text, lines[0])
        _, errors, status = await command(
            *("get", f"p2pdist:b3:{'ab' * 32}", "--listen", "127.0.0.1", "--port", str(port)),
        )
        self.assertEqual(4, status, errors)
        self.assertIn(b"port is in use", errors)
        self.assertNotIn(b"Traceback", errors)

    async def test_signals_end_cleanly(self):
        """SIGTERM and SIGINT stop the node in order; twistd ends with 0.

        Both take up what was added in an earlier run.
        """
        for name in ("TERM", "INT"):
            added = self.folder / f"{name}.state" / "added"
            added.mkdir(parents=True, mode=0o700)
            link = {"source": f"p2pdist:b3:{'0' * 64}?name=added.bin"}
            (added / ("0" * 64)).write_text(json.dumps(link))
            running = self.twistd(name, kind=Talker)
            assert isinstance(running, Talker)
            await running.said("added.bin: looking for peers")
            assert running.transport is not None
            running.transport.signalProcess(name)
            await running.ended
            self.assertEqual(0, running.exit_code)
            log = (self.folder / f"{name}.log").read_text()
            self.assertIn(f"SIG{name}: stopping", log)
            self.assertIn("Server Shut Down", log)
            self.assertNotIn("Traceback", log)

    def small_seed(self, name: str, length: int = 100_000) -> tuple[Path, Descriptor]:
        """Make a small file where the process called ``name`` looks for it."""
        path = self.folder / name / f"{name}.bin"
        path.parent.mkdir()
        path.write_bytes(random.Random(name).randbytes(length))
        source = scan(str(path))
        metadata = build_metadata(source, 65536, progress=None, threads=1)
        return path, Descriptor(hash_key=metadata.hash_key(), name=path.name)

    async def test_watches_runs_a_command_and_ends(self):
        """A node with a configuration file takes what lies in its folder, runs a command, ends."""
        for name, command, code in (("good", "env", 0), ("bad", "false", 1)):
            path, descriptor = self.small_seed(name)
            watched = self.folder / f"{name}.d"
            watched.mkdir()
            (watched / "it.desc").write_text(descriptor.to_toml())
            config = self.folder / f"{name}.toml"
            config.write_text(
                f'watch = "{watched.name}"\nexit-when = "done"\nno-lan = true\n'
                f"on-complete = \"sh -c '{command} > {self.folder}/{name}.out'\"\n"
            )
            process = self.twistd(name, "--config", str(config))
            await process.ended
            log = (self.folder / f"{name}.log").read_text()
            self.assertEqual(code, process.exit_code, log)
            self.assertNotIn("Traceback", log)
            if name == "good":
                told = (self.folder / "good.out").read_text().splitlines()
                self.assertIn(f"P2PDIST_PATH={path}", told)
            else:
                self.assertIn("ended with 1", log)

    async def test_hangup_reads_descriptors_again(self):
        """SIGHUP makes a node read the files of --descriptor again; other signals do nothing."""
        _, descriptor = self.small_seed("first")
        file = self.folder / "it.desc"
        file.write_text(descriptor.to_toml())
        running = self.twistd("second", "--descriptor", str(file), kind=Talker)
        assert isinstance(running, Talker)
        await running.listening
        _, other = self.small_seed("other")
        file.write_text(other.to_toml())
        assert running.transport is not None
        for number in ("STOP", signal.SIGCONT, signal.SIGUSR1, signal.SIGPIPE, "HUP"):
            running.transport.signalProcess(number)
        await running.said("descriptors are read again: 1 good, 0 not")
        self.assertTrue(any("it.desc: added" in line for line in running.lines))

    async def test_under_a_service_manager(self):
        """Sockets are taken over, and the manager hears that the node is ready and that it ends.

        They come blocking, as systemd hands them over; a datagram that waits must not stop it.
        """
        supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"p2pdist-{os.getpid()}"
        supervisor.bind("\0" + address)
        supervisor.settimeout(DEADLINE_S / 2)  # a node that hangs must not keep our thread
        self.addCleanup(supervisor.close)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        udp.sendto(b"early", udp.getsockname())
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.bind(udp.getsockname())
        tcp.listen()
        process = Script(self.folder / "script")
        twistd = "from twisted.scripts.twistd import run; run()"
        options = ("-n", "--pidfile=", "p2pdist", "--state-dir", str(self.folder / "state"))
        reactor.spawnProcess(
            process,
            "/bin/sh",
            ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", sys.executable, "-c", twistd, *options],
            {**os.environ, "PYTHONPATH": ROOT, "LISTEN_FDS": "2", "NOTIFY_SOCKET": f"@{address}"},
            childFDs={0: "w", 1: "r", 2: "r", 3: udp.fileno(), 4: tcp.fileno()},
        )
        self.processes.append(process)
        port = await process.listening
        self.assertEqual(udp.getsockname()[1], port)
        udp.close()
        tcp.close()
        assert process.transport is not None
        heard = await deferToThread(supervisor.recv, 4096)
        self.assertEqual(b"READY=1", heard)
        process.transport.signalProcess("TERM")
        while not heard.startswith(b"STOPPING=1"):
            heard = await deferToThread(supervisor.recv, 4096)
        await process.ended
        self.assertFalse(any("Traceback" in line for line in process.lines), process.lines)

    async def test_second_signal_ends_at_once(self):
        """A second SIGTERM while the first is being obeyed ends the process, without a word."""
        code = (
            "from twisted.internet import reactor, defer\n"
            "from p2pdist.faces.process import patient_once\n"
            "patient_once(reactor)\n"
            "stuck = lambda: (print('stopping', flush=True), defer.Deferred())[1]\n"
            "reactor.addSystemEventTrigger('before', 'shutdown', stuck)\n"
            "reactor.callWhenRunning(print, 'running', flush=True)\n"
            "reactor.run()\n"
        )
        process = Script(self.folder / "script")
        reactor.spawnProcess(
            process,
            sys.executable,
            [sys.executable, "-c", code],
            {**os.environ, "PYTHONPATH": ROOT},
        )
        self.processes.append(process)
        assert process.transport is not None
        for word in ("running", "stopping"):
            await process.said(word)
            process.transport.signalProcess("TERM")
        await process.ended
        self.assertEqual(-signal.SIGTERM, process.exit_code)
        self.assertFalse(any("Traceback" in line for line in process.lines), process.lines)

    async def test_demo_with_a_process_that_dies(self):
        """When a downloader is killed, the demo says which one, and names its log."""
        unmeasured(self)
        shown: list[list[tuple[str, int]]] = []
        demo = Demo(real_machine(reactor), self.folder, 30_000_000, 2, lambda _: None, shown.append)

        def show(rows: list[tuple[str, int]]) -> None:
            if not shown:
                transport = demo._processes[-1].transport
                assert transport is not None
                transport.signalProcess("KILL")
            shown.append(rows)

        demo.show = show
        with self.assertRaises(DemoFailed) as caught:
            await demo.run()
        self.assertIn("downloader-2 ended too soon; see ", str(caught.exception))

    async def test_demo(self):
        """The demo distributes a file among real processes and compares every copy."""
        unmeasured(self)
        said: list[str] = []
        shown: list[list[tuple[str, int]]] = []
        demo = Demo(real_machine(reactor), self.folder, 3_000_000, 2, said.append, shown.append)
        await demo.run()
        self.assertEqual(2, sum("equals the original" in line for line in said))
        self.assertEqual([("downloader-1", 100), ("downloader-2", 100)], shown[-1])
