"""OpenSSH itself: ``ssh-keygen`` signs and verifies what p2pdist does, both ways.

Skipped where OpenSSH is not installed, or older than 8.9: earlier ones know less of the format.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from unittest import SkipTest, mock

from click.testing import CliRunner

from p2pdist.descriptor import DescriptorParser
from p2pdist.errors import ConfigurationError, DescriptorError
from p2pdist.faces.cli.sign import load_private
from p2pdist.faces.cli.sign import sign as sign_command
from p2pdist.signatures import NAMESPACE, PublicKey, public_key_of
from p2pdist.signers import load_signers
from p2pdist.test.support import TestCase
from p2pdist.test.test_signatures import ED25519, P256, armor, blob, on_token, subject

DATA = f'hash_key = "b3:{"ab" * 32}"\nnodes = []\n'.encode()
NOW = datetime(2026, 3, 1, tzinfo=timezone.utc).timestamp()
PROGRAM = shutil.which("ssh-keygen")
KINDS = (
    ("ed25519", ()),
    *(("ecdsa", ("-b", bits)) for bits in ("256", "384", "521")),
    ("rsa", ("-b", "2048")),
)


@functools.cache
def version() -> tuple[int, int]:
    """Return OpenSSH's version; ssh tells it, ssh-keygen does not."""
    if (ssh := shutil.which("ssh")) is None:
        return (0, 0)
    said = subprocess.run([ssh, "-V"], capture_output=True, check=False).stderr
    found = re.match(rb"OpenSSH_(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class SSHKeygenTests(TestCase):
    """Both programs in one folder."""

    def setUp(self):
        """Make the folder, with a descriptor."""
        if PROGRAM is None or version() < (8, 9):
            raise SkipTest("ssh-keygen of OpenSSH 8.9 or later is not installed")
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.desc = self.folder / "x.desc"
        self.sig = self.folder / "x.desc.sig"
        self.desc.write_bytes(DATA)

    def keygen(self, *arguments: str, text: bytes = b"", **environ: str) -> tuple[int, str]:
        """Run ssh-keygen here, without agent or terminal; return exit code and output."""
        assert PROGRAM is not None
        clean = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.folder,
            input=text,
            env={**clean, "HOME": str(self.folder), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.returncode, done.stdout.decode()

    def new_key(self, name: str, kind: str, *options: str, passphrase: str = "") -> PublicKey:
        """Let ssh-keygen make a key; return its public half."""
        code, output = self.keygen(
            *("-q", "-t", kind, *options, "-N", passphrase, "-C", "", "-f", name)
        )
        self.assertEqual(0, code, output)
        return PublicKey.from_text(*(self.folder / f"{name}.pub").read_text().split()[:2])

    def sign_here(self, key: str) -> None:
        """Run ``p2pdist sign``."""
        result = CliRunner().invoke(
            sign_command, [str(self.desc), "--key", str(self.folder / key), "--force"]
        )
        self.assertEqual(0, result.exit_code, result.output)

    def sign_there(self, key: str, namespace: str = NAMESPACE) -> None:
        """Run ``ssh-keygen -Y sign``."""
        self.sig.unlink(missing_ok=True)
        code, output = self.keygen("-Y", "sign", "-n", namespace, "-f", key, "x.desc")
        self.assertEqual(0, code, output)

    def allow(self, *lines: str) -> None:
        """Write the allowed-signers file."""
        (self.folder / "allowed").write_text("".join(f"{line}\n" for line in lines))

    def verdicts(self, *, revoked: bool = False) -> tuple[bool, bool]:
        """Return whether p2pdist and whether ssh-keygen accept the descriptor, at ``NOW``."""
        data = self.desc.read_bytes()
        lists = [str(self.folder / name) for name in ("allowed", "revoked")]
        try:
            signers = load_signers(lists[0], lambda: NOW, lists[1] if revoked else None)
            DescriptorParser(signers).parse_file(str(self.desc))
            here = True
        except (DescriptorError, ConfigurationError):
            here = False
        when = f"{datetime.fromtimestamp(NOW, timezone.utc):%Y%m%d%H%M%S}"
        code, output = self.keygen(
            *("-Y", "verify", "-f", "allowed", "-I", "me", "-n", NAMESPACE, "-s", "x.desc.sig"),
            *(f"-Overify-time={when}", *(("-r", "revoked") if revoked else ())),
            text=data,
            TZ="UTC",
        )
        self.assertNotIn("usage:", output)
        return here, code == 0

    def test_both_ways(self):
        """Each accepts what the other signed, with every kind of key."""
        for number, (kind, options) in enumerate(KINDS):
            name = f"id{number}"
            key = self.new_key(name, kind, *options)
            self.allow(f"me {key.text}")
            for sign in (self.sign_here, self.sign_there):
                sign(name)
                self.assertEqual((True, True), self.verdicts(), (kind, options, sign))

    def test_fingerprint(self):
        """A key is called here what ssh-keygen calls it."""
        key = self.new_key("id", "ed25519")
        self.assertIn(f" {key.fingerprint} ", self.keygen("-l", "-f", "id.pub")[1])

    def test_refused_by_both(self):
        """Neither accepts a changed text, another key, another purpose or one out of its time."""
        key, other = self.new_key("id", "ed25519"), self.new_key("other", "ecdsa")
        both = (f"me {key.text}", f"me {other.text}")
        self.allow(*both)
        for sign in (self.sign_here, self.sign_there):
            sign("id")
            self.assertEqual((True, True), self.verdicts())
            self.desc.write_bytes(DATA + b"\n")
            self.assertEqual((False, False), self.verdicts(), "changed")
            self.desc.write_bytes(DATA)
            for line in (
                f"me {other.text}",
                f'me valid-before="20260226" {key.text}',
                f'me valid-after="20260304" {key.text}',
                f'me namespaces="git" {key.text}',
                f'me namespaces="*,!{NAMESPACE}" {key.text}',
                f"me cert-authority {key.text}",
            ):
                self.allow(line)
                self.assertEqual((False, False), self.verdicts(), line)
            self.allow(*both)
            (self.folder / "revoked").write_text(other.text + "\n")
            self.assertEqual((True, True), self.verdicts(revoked=True))
            (self.folder / "revoked").write_text(f"# gone\n{other.text}\n{key.text} x\n")
            self.assertEqual((False, False), self.verdicts(revoked=True))
        self.sign_there("id", "git")
        self.assertEqual((False, False), self.verdicts(), "another purpose")

    def test_same_lines(self):
        """Both understand options, patterns, quotation marks and times the same way."""
        key = self.new_key("id", "ed25519")
        self.sign_here("id")
        for line in (
            f'"me" {key.text} comment',
            f'*\tNameSpaces="git,p2pdist-*"\t{key.text}',
            f'me,you valid-after="20260226",valid-before="20260304" {key.text}',
            f'me valid-after="202602262359",namespaces="?2pdist-descriptor" {key.text}',
            f'me valid-before="20260304000000" {key.text}',
            f"# comment\n\n  me {key.text}",
        ):
            self.allow(line)
            self.assertEqual((True, True), self.verdicts(), line)

    def test_tokens(self):
        """Signatures as FIDO tokens make them are good for both, and changed ones for neither."""
        for private in (ED25519, P256):
            key, proof = on_token(private)
            self.allow(f"me {key.text}")
            self.sig.write_bytes(armor(blob(key.blob, proof(subject(DATA)))))
            self.assertEqual((True, True), self.verdicts(), key.kind)
            self.sig.write_bytes(armor(blob(key.blob, proof(subject(DATA + b"\n")))))
            self.assertEqual((False, False), self.verdicts(), key.kind)

    def test_encrypted_key(self):
        """An encrypted key is left to ssh-keygen, which asks for the passphrase."""
        key = self.new_key("id", "ed25519", passphrase="sesame")
        self.assertIsNone(load_private((self.folder / "id").read_bytes()))
        ask = self.folder / "ask"
        ask.write_text("#!/bin/sh\necho sesame\n")
        ask.chmod(0o755)
        asking = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        with mock.patch.dict(os.environ, asking):
            self.sign_here("id")
        self.allow(f"me {key.text}")
        self.assertEqual((True, True), self.verdicts())

    def test_pem_key(self):
        """A private key in the older PEM format signs, too."""
        key = self.new_key("id", "ecdsa", "-m", "PEM")
        self.assertIsNone(load_private((self.folder / "id").read_bytes()))
        self.sign_here("id")
        self.allow(f"me {key.text}")
        self.assertEqual((True, True), self.verdicts())

    def test_same_bytes(self):
        """With a key that draws no lots, both write the very same signature."""
        self.new_key("id", "ed25519")
        found = []
        for sign in (self.sign_here, self.sign_there):
            sign("id")
            found.append(base64.b64decode(b"".join(self.sig.read_bytes().splitlines()[1:-1])))
        self.assertEqual(found[0], found[1])

    def test_private_key(self):
        """The key read here is the one ssh-keygen wrote."""
        key = self.new_key("id", "rsa", "-b", "2048")
        private = load_private((self.folder / "id").read_bytes())
        assert private is not None
        self.assertEqual(key, public_key_of(private))
