"""What the documents tell people to type, with real processes on loopback. Few: they are slow.

Nothing sleeps: every wait is for a line or for the end of a process, and a watchdog ends it.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import p2pdist
from p2pdist.test.support import TestCase
from p2pdist.test.test_docs import DOCS, document

DEADLINE_S = 60
ROOT = str(Path(p2pdist.__file__).parents[1])


def free_port() -> int:
    """Return a port of loopback that nobody has now, for UDP and TCP."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port: int = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
    return port


class ExampleTests(TestCase):
    """Two programs of docs/examples, one machine."""

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start an example; it ends with the test, or with the deadline."""
        document(f"docs/examples/{name}.py")
        process = subprocess.Popen(
            [sys.executable, str(DOCS / "examples" / f"{name}.py"), *arguments],
            env={**os.environ, "PYTHONPATH": ROOT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        watchdog = threading.Timer(DEADLINE_S, process.kill)
        watchdog.start()

        def end() -> None:
            watchdog.cancel()
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

        self.addCleanup(end)
        return process

    def test_distribute_and_fetch(self):
        """One process distributes a file, another fetches it; both end by themselves."""
        folder = Path(self.mktemp()).absolute()
        (folder / "there").mkdir(parents=True)
        path = folder / "model.bin"
        path.write_bytes(random.Random(1).randbytes(3_000_000))
        sender = self.start("distribute", str(path), "127.0.0.1", str(free_port()), "2")
        assert sender.stdout is not None
        self.assertEqual(f"hand out {path}.desc\n", sender.stdout.readline())
        receiver = self.start("fetch", f"{path}.desc", str(folder / "there"), "127.0.0.1")
        out, _ = receiver.communicate()
        copy = folder / "there" / "model.bin"
        self.assertIn(f"complete and verified: {copy}\n", out)
        self.assertEqual(path.read_bytes(), copy.read_bytes())
        out, _ = sender.communicate()
        self.assertEqual((0, 0), (receiver.returncode, sender.returncode))
        self.assertEqual(2, out.count(" has it\n"))
