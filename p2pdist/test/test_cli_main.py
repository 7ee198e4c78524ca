"""The ``p2pdist`` command as a whole, and the commands that need no network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from click.testing import CliRunner

from p2pdist import __version__
from p2pdist.faces.cli import demo as demo_module
from p2pdist.faces.cli import verify as verify_module
from p2pdist.faces.cli.main import COMMANDS, main
from p2pdist.storage.realdisk import RealDisk
from p2pdist.storage.statedir import StateDirectory, read_machine_id
from p2pdist.storage.verify import VerifyResult
from p2pdist.test.support import TestCase

LINK = f"p2pdist:b3:{'ab' * 32}?n=10.0.0.5&name=x.bin"


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command; return exit code, output and errors."""
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.stdout, result.stderr


class MainTests(TestCase):
    """What is there."""

    def test_help_lists_every_command(self):
        """``--help`` names all commands without importing them."""
        loaded = sys.modules.pop("p2pdist.faces.cli.get", None)
        code, output, _ = run("--help")
        self.assertEqual(0, code)
        for name in COMMANDS:
            self.assertIn(name, output)
        self.assertNotIn("p2pdist.faces.cli.get", sys.modules)
        if loaded is not None:
            sys.modules["p2pdist.faces.cli.get"] = loaded

    def test_every_command_has_help(self):
        """Each command explains itself."""
        for name in COMMANDS:
            code, output, _ = run(name, "--help")
            self.assertEqual(0, code, name)
            self.assertIn("--json", output, name)

    def test_version(self):
        """``--version`` prints the version."""
        self.assertIn(__version__, run("--version")[1])

    def test_unknown_command(self):
        """An unknown command is a usage error."""
        self.assertEqual(2, run("fetch")[0])

    def test_bad_links_and_files(self):
        """``get``, ``seed`` and ``verify`` refuse bad descriptors with one line and code 2."""
        for command in ("get", "seed", "verify"):
            for what in ("p2pdist:b3:77", "none.desc"):
                code, _, errors = run(command, what)
                self.assertEqual(2, code, (command, what))
                self.assertEqual(1, errors.count("\n"), errors)

    def test_bad_timeouts(self):
        """A ``--timeout`` that is no span of time is a usage error."""
        for text in ("nan", "0", "-1", "soon"):
            code, _, errors = run("get", LINK, "--listen", "lo", "--timeout", text)
            self.assertEqual(2, code, text)
            self.assertIn("--timeout", errors)

    def test_bad_listen_address(self):
        """A bad ``--listen`` is a configuration error."""
        code, _, errors = run("get", LINK, "--listen", "lo")
        self.assertEqual(4, code)
        self.assertIn("--listen", errors)


class VerifyTests(TestCase):
    """``p2pdist verify`` tells what it found."""

    def verify(self, result: VerifyResult, *options: str) -> tuple[int, str, str]:
        """Run the command on a result."""
        self.patch(verify_module, "run_until_done", lambda _work: result)
        return run("verify", LINK, *options)

    def test_all_is_right(self):
        """Exit code 0."""
        code, output, _ = self.verify(VerifyResult("/d/x.bin", 3, (), ()))
        self.assertEqual((0, "/d/x.bin: every byte is right\n"), (code, output))

    def test_bad_pieces(self):
        """Exit code 1; files are named, too many are counted."""
        names = tuple(f"file {number}" for number in range(25))
        code, output, _ = self.verify(VerifyResult("/d/x", 9, (1, 2), names))
        self.assertEqual(1, code)
        self.assertIn("2 of 9 pieces are bad", output)
        self.assertIn("and 5 more", output)

    def test_without_metadata(self):
        """Without metadata it can only be said that it differs."""
        code, output, _ = self.verify(VerifyResult("/d/x", None, (), ()))
        self.assertEqual(1, code)
        self.assertIn("differs", output)

    def test_json(self):
        """With --json the result is one object."""
        code, output, _ = self.verify(VerifyResult("/d/x", 9, (4,), ("x",)), "--json")
        self.assertEqual(1, code)
        self.assertEqual([4], json.loads(output)["bad_pieces"])

    def test_interrupt(self):
        """An interrupt ends it with code 1."""

        def interrupt(_work):
            raise KeyboardInterrupt

        self.patch(verify_module, "run_until_done", interrupt)
        self.assertEqual(1, run("verify", LINK)[0])

    def test_nameless_descriptor_needs_a_path(self):
        """A link without a name needs --path, and says so."""
        code, _, errors = run("verify", LINK.split("&", maxsplit=1)[0])
        self.assertEqual(4, code)
        self.assertIn("--path", errors)


class DemoTests(TestCase):
    """``p2pdist demo`` around the demonstration itself (see ``test_e2e``)."""

    def test_result(self):
        """Seconds and copies are printed, for people or as JSON."""
        self.patch(demo_module, "run_until_done", lambda _work: 2.0)
        code, output, _ = run("demo", "--size", "1MiB", "--downloaders", "3")
        self.assertEqual(0, code)
        self.assertIn("3 verified copies in 2.0 s", output)
        self.assertEqual(3, json.loads(run("demo", "--downloaders", "3", "--json")[1])["copies"])

    def test_folder_must_be_empty(self):
        """An existing folder that is not empty is refused."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "mine").write_text("")
        code, _, errors = run("demo", "--directory", str(folder))
        self.assertEqual(4, code)
        self.assertIn("not empty", errors)

    def test_interrupt(self):
        """An interrupt ends it with code 1."""

        def interrupt(_work):
            raise KeyboardInterrupt

        self.patch(demo_module, "run_until_done", interrupt)
        self.assertEqual(1, run("demo")[0])


class IdTests(TestCase):
    """``p2pdist id``."""

    def test_prints_who_the_node_is(self):
        """Node id and public key of a state directory, also while its node has it locked."""
        path = str(Path(self.mktemp()).absolute())
        state = StateDirectory.open(RealDisk(), path)
        self.addCleanup(state.close)
        key = state.node_key(bytes, read_machine_id())
        code, output, errors = run("id", "--state-dir", path)
        self.assertEqual((0, ""), (code, errors))
        self.assertIn(key.node_id.hex(), output)
        self.assertIn(key.public.hex(), output)
        told = json.loads(run("id", "--state-dir", path, "--json")[1])
        self.assertEqual(key.node_id.hex(), told["node_id"])
        self.assertEqual(path, told["state_dir"])

    def test_makes_nothing(self):
        """Where no node has been, there is no id, and nothing is left behind."""
        path = Path(self.mktemp()).absolute()
        for _ in range(2):
            code, output, errors = run("id", "--state-dir", str(path))
            self.assertEqual((4, "", 1), (code, output, errors.count("\n")))
            self.assertIn("node.key is not there", errors)
            if path.exists():
                self.assertEqual([], list(path.iterdir()))
            path.mkdir(exist_ok=True)
