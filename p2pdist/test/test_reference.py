"""The generated reference and the pages beside it: nothing a user can meet is missing.

Job: hold ``tools/reference.py`` against what commands, twistd and errors themselves say, and the
hand-written pages against both. Needs no Sphinx. Skipped where only the package is installed.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from click.testing import CliRunner

from p2pdist.errors import P2PDistError
from p2pdist.faces.cli.main import COMMANDS, main
from p2pdist.faces.tap import Options
from p2pdist.fleet import SENTENCES
from p2pdist.overlay.bootstrap import EntryState
from p2pdist.test.support import TestCase
from p2pdist.test.test_docs import TREE, document, rows
from p2pdist.web.metrics import NodeCollector

PHRASE_CHARACTERS = 12
"""Shorter constant parts only lead up to another error's sentence."""


@functools.cache
def load_reference() -> ModuleType:
    """Import the script, which lies outside the package."""
    document("tools/reference.py")
    spec = importlib.util.spec_from_file_location(
        "p2pdist_reference", TREE / "tools" / "reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def flat(text: str) -> str:
    """Return text on one line, so that a broken line hides nothing."""
    return " ".join(text.split())


def constants(tree: ast.Module) -> set[str]:
    """Return every text of a module, and every name of a field."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    fields = {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return fields | {text for text in texts if isinstance(text, str)}


class ReferenceCase(TestCase):
    """Has the script at hand."""

    def setUp(self):
        """Load it, or skip."""
        self.reference = load_reference()


class CommandTests(ReferenceCase):
    """Commands and options."""

    def test_every_option_of_every_command(self):
        """Each command and each option that its --help shows has a row, with a meaning."""
        page = self.reference.commands_page()
        runner = CliRunner()
        self.assertLessEqual({f"p2pdist {name}" for name in COMMANDS}, set(self.sections(page)))
        for name in COMMANDS:
            shown = runner.invoke(main, [name, "--help"]).output
            options = set(re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+)", shown, re.MULTILINE))
            section = self.sections(page)[f"p2pdist {name}"]
            told = {row[0]: row[2] for row in rows(section) if row[0].startswith("`-")}
            missing = {option for option in options if not any(option in head for head in told)}
            self.assertEqual(set(), missing, name)
            self.assertNotIn("", told.values(), f"p2pdist {name}: an option has no help")

    def test_every_json(self):
        """What --json prints is told for each command that has it, by keys that the code knows."""
        after = document("docs/operations.md").partition("## For scripts")[2].partition("\n## ")[0]
        told = {row[0].strip("`"): row[1] for row in rows(after)[2:]}
        have = {
            name.removeprefix("p2pdist ")
            for name, command in self.reference.commands().items()
            if any("--json" in parameter.opts for parameter in command.params)
        }
        self.assertEqual(have, {name.split(" ")[0] for name in told})
        known = {text for _, tree in self.reference.modules() for text in constants(tree)}
        keys = {key for text in told.values() for key in re.findall(r"`([a-z_]+)`", text)}
        self.assertEqual(set(), keys - known - {"null"})

    def sections(self, page: str) -> dict[str, str]:
        """Return the parts of a page by their headings."""
        parts = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))

    def test_every_option_of_the_service(self):
        """Each option that ``twistd p2pdist --help`` shows has a row, with a meaning."""
        shown = str(Options().getUsage(width=200))
        options = set(re.findall(r"(--[a-z0-9-]+)", shown.partition("Options:")[2]))
        told = {row[0].split("`")[1]: row[2] for row in rows(self.reference.twistd_page())[2:]}
        self.assertLessEqual(options - {"--help", "--version", "--descriptor"}, set(told))
        self.assertIn("--descriptor", told)
        self.assertNotIn("", told.values(), "an option has no help")


class ErrorTests(ReferenceCase):
    """Exit codes, and what programs say when they end."""

    def test_every_exit_code(self):
        """Each exit code an error can give is in docs/operations.md, and no other but 0."""
        told = {int(row[0]) for row in rows(document("docs/operations.md")) if row[0].isdigit()}
        self.assertEqual({0, *self.reference.exit_codes()}, told)
        page = self.reference.errors_page()
        for number, names in self.reference.exit_codes().items():
            self.assertIn(f"| {number} | ", page)
            for name in names:
                self.assertIn(f"`{name}`", page)

    def test_every_error_is_known(self):
        """The classes found are all there are, those of single commands too."""
        found = set(self.reference.error_classes().values())
        self.assertLessEqual({P2PDistError, *P2PDistError.__subclasses__()} - found, set())
        self.assertLessEqual(
            {"Stragglers", "TimedOut", "NotRunning", "DemoFailed"},
            set(self.reference.error_classes()),
        )

    def test_every_sentence_says_what_to_do(self):
        """An error's sentence ends with its remedy, or docs/troubleshooting.md has a row for it."""
        page = flat(document("docs/troubleshooting.md"))
        missing = [
            f"{one.where}: {one.error}: {one.text}"
            for one in self.reference.sentences()
            if not one.says_what_to_do and len(one.phrase) >= PHRASE_CHARACTERS
            if one.phrase not in page
        ]
        self.assertEqual(
            [], missing, "end it with '; what to do', or add a row to docs/troubleshooting.md"
        )

    def test_troubleshooting_is_not_stale(self):
        """What the tables of docs/troubleshooting.md quote is still said somewhere in the code."""
        said = flat(
            "\n".join(
                text
                for _, tree in self.reference.modules()
                for text in self.reference.constants(tree)
            )
        )
        stale = [
            quoted
            for row in rows(document("docs/troubleshooting.md"))
            if len(row) == 2 and row[0] not in {"it says", "it waits for", "---"}
            for whole in row[0].split(" / ")
            for quoted in whole.split("...")
            if len(quoted.strip(" ,:;")) >= PHRASE_CHARACTERS and quoted.strip(" ,:;") not in said
        ]
        self.assertEqual([], stale)

    def test_every_reason(self):
        """What ``why`` can say, and how an entry of ``nodes`` can stand, is explained."""
        page = flat(document("docs/troubleshooting.md"))
        for sentence in SENTENCES.values():
            self.assertIn(f"| {sentence} |", page)
        operations = document("docs/operations.md")
        for state in EntryState:
            self.assertIn(f"| {state.value.partition(' (')[0]} |", operations)


class SiteTests(ReferenceCase):
    """What the site's front page leads to."""

    def test_every_document(self):
        """Each document and each generated page is in a table of contents of docs/index.md."""
        listed = set(re.findall(r"[\w/-]+(?=>?$)", document("docs/index.md"), re.MULTILINE))
        pages = {path.stem for path in (TREE / "docs").glob("*.md")} - {"index"}
        generated = {f"generated/{name.removesuffix('.md')}" for name in self.reference.PAGES}
        self.assertEqual(set(), (pages | generated) - listed, "add it to docs/index.md")


class RunningTests(ReferenceCase):
    """What a running node says."""

    def test_every_log_event(self):
        """Events of each level are found with their fields; a log line begins with none."""
        events = {(one.level, one.format): one.fields for one in self.reference.log_events()}
        self.assertIn(("info", "node {node} listens on {hosts}, UDP and TCP port {port}"), events)
        self.assertIn("peer", events["info", "{name}: first peer {peer}"])
        self.assertLessEqual({"error", "warn", "info", "debug"}, {level for level, _ in events})

    def test_every_metric(self):
        """Each metric that ``/metrics`` can tell is in the reference, with a meaning."""
        told = {row[0].strip("`"): row[3] for row in rows(self.reference.metrics_page())[2:]}
        names = {family.name for family in NodeCollector(None).describe()}  # type: ignore[arg-type]
        self.assertEqual(names, {name.removesuffix("_total") for name in told})
        self.assertIn("p2pdist_content_sent_bytes_total", told)
        self.assertNotIn("", told.values(), "a metric has no help")

    def test_changes(self):
        """What is not released yet stands above what is."""
        page = self.reference.changes_page()
        self.assertLess(page.index("# Changes"), page.index("## Not released yet"))
        self.assertIn("``", document("newsfragments/+library.feature"))
        self.assertNotIn("``", page)

    def test_pages_are_written_once(self):
        """A page that did not change keeps its file, so that a second build is quick."""
        folder = Path(self.mktemp()).absolute()
        self.reference.write(folder)
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        self.reference.write(folder)
        self.assertEqual(set(self.reference.PAGES), set(before))
        self.assertEqual(before, {path.name: path.stat().st_mtime_ns for path in folder.iterdir()})
