"""What the documents tell people to type, with real processes on loopback. Few: they are slow.

Nothing sleeps: every wait is for a line or for the end of a process, and a watchdog ends it.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import p2pdist
from p2pdist.test.support import TestCase, unmeasured
from p2pdist.test.test_docs import DOCS, TREE, document

DEADLINE_S = 60
ROOT = str(Path(p2pdist.__file__).parents[1])


def load_quickstart() -> ModuleType:
    """Import the script, which lies outside the package."""
    document("tools/quickstart.py")
    where = TREE / "tools" / "quickstart.py"
    spec = importlib.util.spec_from_file_location("p2pdist_quickstart", where)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
        unmeasured(self)
        folder = Path(self.mktemp()).absolute()
        (folder / "there").mkdir(parents=True)
        path = folder / "model.bin"
        path.write_bytes(random.Random(1).randbytes(3_000_000))
        sender = self.start(
            "distribute", str(path), "127.0.0.1", str(load_quickstart().free_port()), "2"
        )
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


class QuickstartTests(TestCase):
    """The README's first commands."""

    def test_word_for_word(self):
        """What the README tells a new user to type makes, serves and fetches a file.

        All but the installation: that is ``tools/quickstart.py``. The file is smaller here.
        """
        unmeasured(self)
        quickstart = load_quickstart()
        install, *typed = quickstart.commands(document("README.md"))
        self.assertLessEqual(len(typed) + 1, quickstart.COMMANDS_MOST)
        self.assertIn("pip install .", install)
        folder = Path(self.mktemp()).absolute()
        program = folder / "venv" / "bin" / "p2pdist"
        program.parent.mkdir(parents=True)
        code = "from p2pdist.faces.cli.main import main; main()"
        command = f"PYTHONPATH={shlex.quote(ROOT)} exec {shlex.quote(sys.executable)}"
        program.write_text(f'#!/bin/sh\n{command} -c "{code}" "$@"\n')
        program.chmod(0o755)
        port = quickstart.free_port()
        lines = [quickstart.local(line, port).replace("100M", "1M") for line in typed]
        self.assertIn("--listen 127.0.0.1", lines[-1])
        out = quickstart.run(folder, lines, timeout_s=DEADLINE_S)
        self.assertIn("complete and verified", out)
        self.assertEqual(1 << 20, (folder / quickstart.COPY).stat().st_size)
