"""Tests of ``p2pdist make``."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path

from click.testing import CliRunner, Result

from p2pdist import limits
from p2pdist.addresses import HostPort
from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.faces.cli.make import make
from p2pdist.source import build_metadata, scan
from p2pdist.test.support import TestCase

DATA = bytes(range(256)) * 300  # more than one of the smallest pieces


class MakeCase(TestCase):
    """The command, in a folder of its own."""

    def setUp(self):
        """Go to a new folder that holds a file and a folder."""
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "data").mkdir(parents=True)
        before = Path.cwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, before)
        Path("a b.iso").write_bytes(DATA)
        Path("data/one").write_bytes(b"1")
        Path("data/two").write_bytes(b"22")

    def make(self, *arguments: str) -> Result:
        """Run the command."""
        return CliRunner().invoke(make, arguments)

    def made(self, *arguments: str, at: str) -> Descriptor:
        """Run the command, which must succeed, and return the descriptor it wrote."""
        result = self.make(*arguments)
        self.assertEqual((0, ""), (result.exit_code, result.stderr))
        return DescriptorParser().parse_file(at)

    def assert_refused(self, code: int, reason: str, *arguments: str) -> None:
        """Fail unless the command ends with this exit code and reason, and writes nothing."""
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        result = self.make(*arguments)
        self.assertEqual((code, ""), (result.exit_code, result.stdout))
        self.assertIn(reason, result.stderr)
        after = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        self.assertEqual(before, after)

    def metadata(self, path: str, piece_length: int = limits.PIECE_LENGTH_MIN) -> Metadata:
        """Return what the path's metadata must be."""
        return build_metadata(scan(path), piece_length)


class MakeTests(MakeCase):
    """What it writes and refuses."""

    def test_one_is_not_many(self):
        """One piece and one file are counted in words that fit."""
        Path("data/two").unlink()
        output = self.make("data").stdout
        self.assertIn("data: 1 B in 1 file, 1 piece of 64.0 KiB", output)
        self.assertIn("2 pieces of 64.0 KiB", self.make("a b.iso").stdout)

    def test_file(self):
        """A descriptor with everything a file's descriptor can say, in the current folder."""
        made = self.made("a b.iso", "--sha256", at="a b.iso.desc")
        expected = Descriptor(
            hash_key=self.metadata("a b.iso").hash_key(),
            name="a b.iso",
            length=len(DATA),
            piece_length=limits.PIECE_LENGTH_MIN,
            sha256=hashlib.sha256(DATA).hexdigest(),
        )
        self.assertEqual(expected, made)
        made.check_metadata(self.metadata("a b.iso"))

    def test_folder(self):
        """A folder's descriptor carries its name and whole length."""
        made = self.made("data/", at="data.desc")
        self.assertEqual(self.metadata("data").hash_key(), made.hash_key)
        self.assertEqual(("data", 3), (made.name, made.length))

    def test_options(self):
        """Nodes, name, piece length and place are as asked; a node given twice counts once."""
        made = self.made(
            *("a b.iso", "--node", "10.0.0.5", "--node", "[2001:db8::5]:99", "--node", "10.0.0.5"),
            *("--name", "x.iso", "--piece-length", "128KiB", "--output", "data.toml"),
            at="data.toml",
        )
        self.assertEqual(
            (HostPort("10.0.0.5", limits.DEFAULT_PORT), HostPort("2001:db8::5", 99)), made.nodes
        )
        self.assertEqual(("x.iso", 128 * limits.KIB), (made.name, made.piece_length))
        renamed = build_metadata(scan("a b.iso", "x.iso"), 128 * limits.KIB)
        self.assertEqual(renamed.hash_key(), made.hash_key)

    def test_words(self):
        """It prints path, hash_key, the one line, and commands that can be copied."""
        result = self.make("a b.iso", "--node", "10.0.0.5:99")
        made = DescriptorParser().parse_file("a b.iso.desc")
        commands = [shlex.split(line) for line in result.stdout.splitlines() if line[:4] == " " * 4]
        path = str(self.folder / "a b.iso")
        self.assertEqual(
            [
                ["p2pdist", "seed", "a b.iso.desc", "--path", path, "--port", "99"],
                ["p2pdist", "get", "a b.iso.desc"],
                ["p2pdist", "get", made.to_uri()],
            ],
            commands,
        )
        self.assertEqual(made.hash_key, DescriptorParser().parse_uri(commands[2][2]).hash_key)
        self.assertIn("b3:" + made.hash_key.hex(), result.stdout)
        self.assertNotIn("local network only", result.stdout)

    def test_warning_without_nodes(self):
        """Without --node it says where that works, and what to do elsewhere."""
        result = self.make("data")
        self.assertIn("local network only", result.stdout)
        last = result.stdout.splitlines()[-1]
        self.assertTrue(last.startswith("    p2pdist get "), "and ends with what to type")
        self.assertNotIn("--port", result.stdout)

    def test_json(self):
        """--json prints one line for programs."""
        result = self.make("data", "--node", "n1", "--json")
        values = json.loads(result.stdout)
        made = DescriptorParser().parse_file(values["descriptor"])
        self.assertEqual(str(self.folder / "data.desc"), values["descriptor"])
        self.assertEqual(made.to_uri(), values["uri"])
        self.assertEqual("p2pdist get data.desc", values["receive"])
        facts = ("name", "length", "piece_length", "pieces", "files", "nodes", "sha256")
        self.assertEqual(
            ["data", 3, limits.PIECE_LENGTH_MIN, 1, 2, ["n1:7667"], None],
            [values[key] for key in facts],
        )

    def test_standard_output(self):
        """--output - writes the descriptor to standard output and nothing else anywhere."""
        result = self.make("data", "--output", "-")
        parsed = DescriptorParser().parse(result.stdout)
        self.assertEqual(self.metadata("data").hash_key(), parsed.hash_key)
        self.assertFalse(Path("data.desc").exists())
        self.assert_refused(2, "standard output", "data", "--output", "-", "--json")

    def test_nothing_is_overwritten(self):
        """What exists stays, unless --force says otherwise; then it is replaced whole."""
        Path("data.desc").write_text("mine" * 1000)
        self.assert_refused(4, "--force", "data")
        made = self.made("data", "--force", at="data.desc")
        self.assertEqual("data", made.name)
        self.assert_refused(4, "exists", "a b.iso", "--output", "data", "--force")
        self.assertEqual({"a b.iso", "data", "data.desc"}, {path.name for path in Path().iterdir()})

    def test_content_is_not_touched(self):
        """The descriptor cannot replace or enter what it describes."""
        for arguments in (
            ("a b.iso", "--output", "a b.iso", "--force"),
            ("data", "--output", "data/x.desc"),
            (".",),
        ):
            self.assert_refused(4, "part of what it describes", *arguments)

    def test_places_that_cannot_be(self):
        """A place that cannot be written is refused before any hashing."""
        self.assert_refused(4, "no folder", "data", "--output", "missing/x.desc")
        self.assert_refused(4, "cannot write", "data", "--output", "x" * 300)
        long_name = "n" * limits.NAME_BYTES
        self.assert_refused(4, "cannot write", "data", "--name", long_name)

    def test_content_that_cannot_be(self):
        """A missing, empty or unsafe content is refused with the exit code of its error."""
        Path("empty").mkdir()
        Path("-x").write_bytes(b"")
        self.assert_refused(4, "cannot read", "missing")
        self.assert_refused(4, "holds no file", "empty")
        self.assert_refused(2, "hyphen", "./-x")
        self.assert_refused(2, "slash", "data", "--name", "a/b")

    def test_usage(self):
        """Slips in options are usage errors."""
        self.assert_refused(2, "expected host:port", "data", "--node", "a:b")
        self.assert_refused(2, "power of two", "data", "--piece-length", "65537")
        self.assert_refused(2, "power of two", "data", "--piece-length", "0")
        self.assert_refused(2, "no size", "data", "--piece-length", "big")
        self.assert_refused(2, "single files", "data", "--sha256")
        nodes = [f"--node=n{index}" for index in range(limits.DESCRIPTOR_NODES + 1)]
        self.assert_refused(2, f"at most {limits.DESCRIPTOR_NODES}", "data", *nodes)
        self.assert_refused(2, "PATH")

    def test_names_cannot_steer_the_terminal(self):
        """What is printed of hostile names is escaped."""
        Path("x\x1b[31m").write_bytes(b"")
        result = self.make("x\x1b[31m")
        self.assertEqual(2, result.exit_code)
        self.assertNotIn("\x1b", result.output)


class PrivateTests(MakeCase):
    """``--private`` and ``--secret-file``."""

    def texts(self, result: Result) -> str:
        """Return all that was printed."""
        return result.stdout + result.stderr

    def test_secret_in_the_descriptor(self):
        """The descriptor has a new secret, mode 0600; nothing that is printed shows it."""
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        seen = set()
        for arguments in ((), ("--force",), ("--force", "--json")):
            result = self.make("a b.iso", "--private", *arguments)
            self.assertEqual(0, result.exit_code, result.stderr)
            made = DescriptorParser().parse_file("a b.iso.desc")
            (secret,) = made.secrets
            seen.add(secret)
            self.assertEqual(0o600, Path("a b.iso.desc").stat().st_mode & 0o777)
            self.assertNotIn(secret.text[6:30], self.texts(result))
        self.assertEqual(3, len(seen), "a new one each time")
        self.assertTrue(json.loads(result.stdout)["private"])

    def test_secret_in_a_file(self):
        """The secret goes into a file, made once, that the descriptor names; others are public."""
        for name in ("a b.iso", "data"):
            result = self.make(name, "--secret-file", "swarm.secret")
            self.assertEqual(0, result.exit_code, result.stderr)
            self.assertIn("swarm.secret, which has the secret", result.stdout)
            self.assertNotIn("the one line", result.stdout)
        one, two = (DescriptorParser().parse_file(f"{name}.desc") for name in ("a b.iso", "data"))
        self.assertEqual("swarm.secret", one.secret_file)
        self.assertEqual(one.secrets, two.secrets)
        self.assertNotIn(one.secrets[0].text, Path("a b.iso.desc").read_text())
        self.assertEqual(0o600, Path("swarm.secret").stat().st_mode & 0o777)
        self.make("data", "--output", "elsewhere.desc", "--secret-file", "data.d/s")
        Path("data.d").mkdir()
        result = self.make("data", "--output", "elsewhere.desc", "--secret-file", "data.d/s")
        self.assertEqual(0, result.exit_code, result.stderr)
        made = DescriptorParser().parse_file("elsewhere.desc")
        self.assertEqual(str(self.folder / "data.d/s"), made.secret_file)

    def test_refused_secret_files(self):
        """No secret becomes part of the content, or of what is written over; none is unreadable."""
        Path("open.secret").write_text("p2ps1-x")
        Path("open.secret").chmod(0o644)
        self.assert_refused(4, "handed out", "data", "--secret-file", "data/s")
        self.assert_refused(4, "handed out", "data", "--secret-file", "data.desc")
        self.assert_refused(4, "chmod 600", "data", "--secret-file", "open.secret")
        self.assert_refused(4, "cannot write", "data", "--secret-file", "none/s")
