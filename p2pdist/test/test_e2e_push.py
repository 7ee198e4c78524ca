"""``p2pdist push`` on this machine: the whole way, real processes, our own ssh and a real one.

The real one has a daemon, keys and a configuration of the test's own, on a free port of loopback;
skipped where OpenSSH's daemon is not installed.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from twisted.internet import reactor  # noqa: TID251 -- real processes need the real one
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

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


SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/mine.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR={folder}/temporary
"""
SSH = """\
Host *
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/mine
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known
  GlobalKnownHostsFile none
Host alpha
  HostKeyAlias alpha
Host broken
  HostKeyAlias broken
"""


def free_port() -> int:
    """Return a port of loopback that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


class Talking(ProcessProtocol):
    """A daemon that says when it listens."""

    def __init__(self) -> None:
        self.listening: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.said = b""

    def errReceived(self, data: bytes) -> None:
        """Look what it says."""
        self.said += data
        if b"Server listening" in self.said and not self.listening.called:
            self.listening.callback(None)

    def processEnded(self, reason: Failure) -> None:
        """Tell that it is gone."""
        if not self.listening.called:
            self.listening.errback(reason)
        self.ended.callback(None)

    def stop(self) -> Deferred[None]:
        """End it."""
        if self.transport is not None and not self.ended.called:
            self.transport.signalProcess("TERM")
        return self.ended


class PushCase(TestCase):
    """A file, two machines, and an ssh that is found first."""

    timeout = 90

    def setUp(self):
        """Write them."""
        self.folder = folder = Path(self.mktemp()).absolute()
        (folder / "bin").mkdir(parents=True)
        (folder / "temporary").mkdir()
        self.original = folder / "model.bin"
        self.original.write_bytes(random.Random(1).randbytes(300_000))
        (folder / "hosts.txt").write_text("alpha  # the good one\nbroken\n")

    def ssh(self, script: str) -> None:
        """Make a script the ssh of this test."""
        ssh = self.folder / "bin" / "ssh"
        ssh.write_text(script)
        ssh.chmod(0o755)

    def push(self, to: str, **environment: str) -> Deferred[tuple[bytes, bytes, int]]:
        """Run it."""
        code = "from p2pdist.faces.cli.main import main; main()"
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        own = {"PYTHONPATH": ROOT, "PATH": path, "TMPDIR": f"{self.folder}/temporary"}
        done: Deferred[tuple[bytes, bytes, int]] = getProcessOutputAndValue(
            sys.executable,
            [
                *("-c", code, "push", str(self.original), "-H", f"{self.folder}/hosts.txt:{to}"),
                *("--python", sys.executable, "--timeout", "60", "--json"),
            ],
            {**os.environ, **own, **environment},
        )
        return done


class PushTests(PushCase):
    """A file onto machines that have nothing but Python."""

    async def test_push(self):
        """The machine has the file and nothing else is left there; one that fails is named."""
        self.ssh(FAKE_SSH)
        original, machines = self.original, self.folder / "machines"
        out, errors, status = await self.push("data", FAKE=str(machines))
        self.assertEqual(1, status, errors)
        told = json.loads(out)
        self.assertEqual((["alpha"], []), (told["done"], told["late"]), errors)
        self.assertIn("refused", told["failed"]["broken"])
        copy = machines / "alpha" / "data" / "model.bin"
        self.assertTrue(filecmp.cmp(original, copy, shallow=False))
        left = sorted(str(path.relative_to(machines)) for path in machines.rglob("*"))
        self.assertEqual(["alpha", "alpha/data", "alpha/data/model.bin"], left)


class SSHTests(PushCase):
    """The same through OpenSSH."""

    def start(self) -> Talking:
        """Start a daemon that lets us in, and let our ssh know it by the name of alpha only."""
        folder, port = self.folder, free_port()
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        if not (Path(program).exists() and shutil.which("ssh") and shutil.which("ssh-keygen")):
            raise SkipTest("needs OpenSSH's client and daemon")
        for name in ("host", "mine"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(words, check=True)
        config = folder / "sshd_config"
        config.write_text(SSHD.format(folder=folder, port=port))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # as its unit does
        check = subprocess.run([program, "-t", "-f", config], capture_output=True, check=False)
        if check.returncode:
            raise SkipTest(f"sshd: {check.stderr.decode(errors='replace')}")
        (folder / "known").write_text(f"alpha {(folder / 'host.pub').read_text()}")
        (folder / "ssh_config").write_text(SSH.format(folder=folder, port=port))
        self.ssh(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
        daemon = Talking()
        reactor.spawnProcess(daemon, program, [program, "-D", "-e", "-f", str(config)], {})
        self.addCleanup(daemon.stop)
        return daemon

    async def test_push(self):
        """Through a real daemon the file arrives and nothing stays; an unknown key is a failure."""
        daemon = self.start()
        await daemon.listening
        there = self.folder / "there"
        out, errors, status = await self.push(str(there))
        self.assertEqual(1, status, errors)
        told = json.loads(out)
        self.assertEqual(["alpha"], told["done"], (told, daemon.said))
        self.assertIn("Host key verification failed", told["failed"]["broken"])
        self.assertTrue(filecmp.cmp(self.original, there / "model.bin", shallow=False))
        self.assertEqual([there / "model.bin"], list(there.glob("*")))
        self.assertEqual([], list((self.folder / "temporary").iterdir()))
