"""Tests of ``p2pdist sign``, and of the commands that ask for a signature."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from p2pdist import limits
from p2pdist.descriptor import DescriptorParser
from p2pdist.faces.cli import sign as sign_module
from p2pdist.faces.cli.main import main
from p2pdist.faces.process import asked_signers
from p2pdist.faces.tap import Options
from p2pdist.signatures import PrivateKey, parse_signature, public_key_of
from p2pdist.signatures import sign as sign_bytes
from p2pdist.test.support import TestCase
from p2pdist.test.test_signatures import ED25519, OTHER, P256, P384, P521, rsa_key

DATA = f'hash_key = "b3:{"ab" * 32}"\nnodes = ["10.0.0.5"]\nname = "x"\n'.encode()


def pem(private: PrivateKey) -> bytes:
    """Return the text of a private key's file."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


class SigningCase(TestCase):
    """A folder with a descriptor ``x.desc`` and a key ``id``."""

    def setUp(self):
        """Go there."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        before = Path.cwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, before)
        Path("x.desc").write_bytes(DATA)
        self.write("id", pem(ED25519))
        Path("allowed").write_text(f"me {public_key_of(ED25519).text}\n")

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Write a file with this mode."""
        Path(name).write_bytes(data)
        Path(name).chmod(mode)

    def run_main(self, *arguments: str) -> Result:
        """Run the command."""
        return CliRunner().invoke(main, arguments)

    def assert_refused(self, code: int, reason: str, *arguments: str) -> None:
        """Fail unless the command ends with this code and one line that holds the reason."""
        result = self.run_main(*arguments)
        self.assertEqual((code, ""), (result.exit_code, result.stdout), result.stderr)
        self.assertIn(reason, result.stderr)
        self.assertEqual(1, result.stderr.count("\n"), result.stderr)


class SignTests(SigningCase):
    """The command."""

    def test_signs(self):
        """It writes the signature beside the descriptor and says how it is asked for."""
        result = self.run_main("sign", "x.desc", "--key", "id")
        self.assertEqual((0, ""), (result.exit_code, result.stderr))
        text = Path("x.desc.sig").read_bytes()
        self.assertEqual(sign_bytes(ED25519, DATA).armored(), text)
        self.assertEqual(DATA, Path("x.desc").read_bytes())
        key = public_key_of(ED25519)
        self.assertIn(f"{key.fingerprint} (ssh-ed25519)", result.stdout)
        self.assertIn("p2pdist get x.desc --allowed-signers signers", result.stdout)
        line = next(line for line in result.stdout.splitlines() if "NAME names" in line)
        Path("allowed").write_text(line)
        parser = DescriptorParser(asked_signers("allowed", None))
        self.assertEqual(f"NAME ({key.fingerprint})", parser.parse_file("x.desc").signed_by)

    def test_kinds_of_keys(self):
        """Keys of every kind that need nobody are used right here."""
        self.patch(sign_module, "SSH_KEYGEN", "/nonexistent/ssh-keygen")
        for private in (P256, P384, P521, rsa_key()):
            self.write("id", pem(private))
            result = self.run_main("sign", "x.desc", "--key", "id", "--force")
            self.assertEqual(0, result.exit_code, result.stderr)
            found = parse_signature(Path("x.desc.sig").read_bytes())
            self.assertEqual(public_key_of(private), found.key)
            self.assertTrue(found.covers(DATA))

    def test_home(self):
        """A tilde that the shell left alone, as in --key=~/id, is the home folder."""
        self.patch(os, "environ", {**os.environ, "HOME": str(self.folder)})
        self.assertEqual(0, self.run_main("sign", "x.desc", "--key=~/id").exit_code)

    def test_json(self):
        """With --json the result is one object."""
        output = json.loads(self.run_main("sign", "x.desc", "--key", "id", "--json").stdout)
        self.assertEqual(str(self.folder / "x.desc.sig"), output["signature"])
        self.assertEqual(str(self.folder / "x.desc"), output["descriptor"])
        self.assertEqual(public_key_of(ED25519).fingerprint, output["fingerprint"])
        self.assertIn(public_key_of(ED25519).text, output["allowed_signer"])

    def test_existing_signature(self):
        """A signature that is there is overwritten only with --force."""
        Path("x.desc.sig").write_bytes(b"mine")
        self.assert_refused(4, "--force", "sign", "x.desc", "--key", "id")
        self.assertEqual(b"mine", Path("x.desc.sig").read_bytes())
        self.assertEqual(0, self.run_main("sign", "x.desc", "--key", "id", "--force").exit_code)
        self.assertEqual(
            {"x.desc", "x.desc.sig", "id", "allowed"}, {path.name for path in Path().iterdir()}
        )

    def test_what_is_no_descriptor(self):
        """Only what would be accepted as a descriptor is signed."""
        Path("bad.desc").write_bytes(b"hash_key = 5\n")
        self.assert_refused(2, "bad.desc:1: hash_key: ", "sign", "bad.desc", "--key", "id")
        self.assert_refused(2, "none.desc: cannot be read", "sign", "none.desc", "--key", "id")
        self.assertFalse(Path("bad.desc.sig").exists())

    def test_folder_that_takes_nothing(self):
        """A signature that cannot be written is told with its name."""
        Path("x.desc.sig").mkdir()
        self.assert_refused(4, "cannot write", "sign", "x.desc", "--key", "id", "--force")

    def test_keys_that_cannot_be_used(self):
        """Keys that are missing, too large, open to others or too small are refused by name."""
        self.write("open", pem(ED25519), 0o644)
        self.write("large", bytes(limits.SIGNING_KEY_BYTES + 1))
        for key, reason in (
            ("none", "--key none: cannot be read"),
            (".", "--key .: is a folder"),
            ("large", f"larger than {limits.SIGNING_KEY_BYTES} bytes"),
            ("open", "chmod 600"),
        ):
            self.assert_refused(4, reason, "sign", "x.desc", "--key", key)
        self.assertEqual(2, self.run_main("sign", "x.desc").exit_code)
        self.assertFalse(Path("x.desc.sig").exists())

    def test_small_key(self):
        """A key too small to be accepted anywhere does not sign."""
        small = rsa_key()
        self.patch(limits, "SIGNER_RSA_BITS_MIN", 3072)
        self.write("id", pem(small))
        self.assert_refused(4, "the RSA key has 2048 bits", "sign", "x.desc", "--key", "id")


class ProgramTests(SigningCase):
    """Keys that are left to ssh-keygen."""

    def program(self, text: str) -> None:
        """Put a program in ssh-keygen's place."""
        Path("keygen").write_text(f"#!{sys.executable}\nimport shutil, sys\n{text}\n")
        Path("keygen").chmod(0o755)
        self.patch(sign_module, "SSH_KEYGEN", str(self.folder / "keygen"))

    def test_what_is_left_to_it(self):
        """Encrypted (see ``test_sshkeygen``), public, and PEM keys, and what we cannot read."""
        traditional = P256.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
        public = public_key_of(ED25519).text.encode()
        for content in (traditional, public, b"", b"\xff" * 99, pem(ED25519)[:90]):
            self.assertIsNone(sign_module.load_private(content), content)
        self.assertIsNotNone(sign_module.load_private(pem(ED25519)))

    def test_its_signature_is_taken(self):
        """What it signed is written, if it is what was asked for."""
        Path("made").write_bytes(sign_bytes(P256, DATA).armored())
        self.program(
            "assert sys.argv[1:7] == ['-Y', 'sign', '-n', 'p2pdist-descriptor', '-f', 'key.pub']\n"
            f"assert open(sys.argv[7], 'rb').read() == {DATA!r}\n"
            "shutil.copy('made', sys.argv[7] + '.sig')"
        )
        self.write("key.pub", public_key_of(P256).text.encode(), 0o644)
        result = self.run_main("sign", "x.desc", "--key", "key.pub")
        self.assertEqual(0, result.exit_code, result.stderr)
        self.assertEqual(Path("made").read_bytes(), Path("x.desc.sig").read_bytes())

    def test_its_failures(self):
        """No program, an exit code, nothing written, another text signed: each is told."""
        self.write("id", b"?")
        command = ("sign", "x.desc", "--key", "id")
        self.patch(sign_module, "SSH_KEYGEN", str(self.folder / "keygen"))
        self.assert_refused(4, "does not start", *command)
        Path("made").write_bytes(sign_bytes(P256, DATA + b"\n").armored())
        Path("file").write_bytes(sign_bytes(P256, DATA, "file").armored())
        for text, reason in (
            ("sys.exit(1)", "did not sign with it"),
            ("pass", "wrote: cannot be read"),
            ("open(sys.argv[7] + '.sig', 'w').write('x')", "wrote: it does not begin"),
            ("shutil.copy('made', sys.argv[7] + '.sig')", "does not verify"),
            ("shutil.copy('file', sys.argv[7] + '.sig')", "does not verify"),
        ):
            self.program(text)
            self.assert_refused(4, reason, *command)
        self.assertFalse(Path("x.desc.sig").exists())


class AskingTests(SigningCase):
    """The commands with ``--allowed-signers``."""

    def test_commands_refuse(self):
        """``get``, ``seed`` and ``verify`` refuse unsigned files, other keys and links."""
        link = DescriptorParser().parse(DATA).to_uri()
        for command in ("get", "seed", "verify"):
            # Where it were not refused, it would end with the address, before any network.
            last = () if command == "verify" else ("--listen", "lo")
            options = (*last, "--allowed-signers", "allowed")
            self.assert_refused(2, "is not signed", command, "x.desc", *options)
            self.assert_refused(2, "one line cannot carry", command, link, *options)
            Path("x.desc.sig").write_bytes(sign_bytes(OTHER, DATA).armored())
            self.assert_refused(2, "does not list", command, "x.desc", *options)
            Path("x.desc.sig").unlink()
            self.assert_refused(4, "none: cannot be", command, "x.desc", *options[:-1], "none")
            self.assert_refused(
                4, "without --allowed-signers", command, "x.desc", *last, "--revoked-keys=allowed"
            )

    def test_commands_accept(self):
        """They go on with what is signed, and say by whom; a revoked key is refused."""
        self.run_main("sign", "x.desc", "--key", "id")
        for command in ("get", "seed"):
            result = self.run_main(
                command, "x.desc", "--allowed-signers", "allowed", "--listen", "lo"
            )
            self.assertEqual(4, result.exit_code)
            self.assertIn("x.desc: signed by me (SHA256:", result.stderr)
            self.assertIn("--listen", result.stderr, "the next thing that is wrong")
            self.assertNotIn("signed by", self.run_main(command, "x.desc", "--listen=lo").stderr)
        Path("revoked").write_text(public_key_of(ED25519).text)
        options = ("--allowed-signers=allowed", "--revoked-keys=revoked", "--listen=lo")
        self.assert_refused(2, "is revoked", "get", "x.desc", *options)

    def test_twistd(self):
        """So does the twistd plugin, with all its descriptors."""
        Path("y.desc").write_bytes(DATA)
        self.run_main("sign", "x.desc", "--key", "id")
        options = Options()
        options.parseOptions(["--descriptor", "x.desc", "--allowed-signers", "allowed"])
        self.assertIn("me (SHA256:", str(options.descriptors[0].signed_by))
        for arguments, code in (
            (["--descriptor", "x.desc", "--descriptor", "y.desc"], 2),
            (["--descriptor", "x.desc", "--revoked-keys", "revoked"], 2),
            (["--descriptor", "x.desc", "--revoked-keys", "none"], 4),
        ):
            Path("revoked").write_text(public_key_of(ED25519).text)
            self.patch(sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115, PTH123
            self.addCleanup(sys.stderr.close)
            caught = self.assertRaises(
                SystemExit, Options().parseOptions, ["--allowed-signers", "allowed", *arguments]
            )
            self.assertEqual(code, caught.code)
