"""``p2pdist push`` with an ``ssh`` that stays on this machine: the whole way, real processes."""

from __future__ import annotations

import filecmp
import json
import os
import random
import sys
from pathlib import Path

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

import p2pdist

ROOT = str(Path(p2pdist.__file__).parents[1])
FAKE_SSH = """\
#!/bin/sh
while [ "$1" != "--" ]; do shift; done
host=$2; shift 2
[ "$host" = broken ] && { echo "ssh: connect to host broken port 22: refused" >&2; exit 255; }
mkdir -p "$FAKE/$host" && cd "$FAKE/$host" || exit 1
SSH_CONNECTION="127.0.0.1 1 127.0.0.1 22" TMPDIR="$FAKE" exec sh -c "$*"
"""


class PushTests(TestCase):
    """A file onto machines that have nothing but Python."""

    timeout = 90

    def setUp(self):
        """Choose a folder."""
        self.folder = Path(self.mktemp()).absolute()

    async def test_push(self):
        """The machine has the file and nothing else is left there; one that fails is named."""
        folder = self.folder
        (folder / "bin").mkdir(parents=True)
        ssh = folder / "bin" / "ssh"
        ssh.write_text(FAKE_SSH)
        ssh.chmod(0o755)
        original = folder / "model.bin"
        original.write_bytes(random.Random(1).randbytes(300_000))
        (folder / "hosts.txt").write_text("alpha  # the good one\nbroken\n")
        machines = folder / "machines"
        environment = {
            **os.environ,
            "PYTHONPATH": ROOT,
            "PATH": f"{ssh.parent}:{os.environ['PATH']}",
            "FAKE": str(machines),
        }
        code = "from p2pdist.faces.cli.main import main; main()"
        out, errors, status = await getProcessOutputAndValue(
            sys.executable,
            [
                *("-c", code, "push", str(original), "--hosts", f"{folder}/hosts.txt:data"),
                *("--python", sys.executable, "--timeout", "60", "--json"),
            ],
            environment,
        )
        self.assertEqual(1, status, errors)
        told = json.loads(out)
        self.assertEqual((["alpha"], []), (told["done"], told["late"]), errors)
        self.assertIn("refused", told["failed"]["broken"])
        copy = machines / "alpha" / "data" / "model.bin"
        self.assertTrue(filecmp.cmp(original, copy, shallow=False))
        left = sorted(str(path.relative_to(machines)) for path in machines.rglob("*"))
        self.assertEqual(["alpha", "alpha/data", "alpha/data/model.bin"], left)
