"""The house's rules that no linter knows, each as a test that names file, line and remedy.

Job: read the source tree and complain. Does NOT import what it reads, and leaves to ruff what
ruff can say. Skipped where only the package is installed, without the tree around it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

from p2pdist.test.support import TestCase

PACKAGE = Path(__file__).resolve().parent.parent
TREE = PACKAGE.parent
TESTS = PACKAGE / "test"

FILE_LINES = 500
TEST_FILE_LINES = 900
FUNCTION_LINES = 70
BANNED_WORDS = {"manager", "handler", "processor", "engine", "helper", "util"}
REACTOR_USERS = ("faces/tap.py", "faces/process.py", "test/test_e2e")
REAL_PROCESSES = "test/test_e2e"
UNTESTED = {
    "errors.py": "no decisions; the tests of what raises them read text and attributes",
    **dict.fromkeys(
        (f"limits/{room}.py" for room in ("__init__", "node", "overlay", "swarm", "units")),
        "no code; every name in it must be reached by a test (below)",
    ),
}
"""Modules without a test module of their own, and why that is right."""
UNITS = {"KIB", "MIB", "GIB", "TIB"}
"""Names in ``limits`` that bound nothing."""
FRAGMENT_KINDS = {"security", "incompat", "feature", "bugfix", "doc", "misc"}


def relative(path: Path) -> str:
    """Return ``path`` as the package sees it."""
    return path.relative_to(PACKAGE).as_posix()


def sources(folder: Path = PACKAGE) -> Iterator[tuple[str, str, ast.Module]]:
    """Yield name, text and syntax tree of every Python file below ``folder``."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield relative(path), text, ast.parse(text)


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything a module imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def tests_of(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every method trial would take for a test."""
    for node in ast.walk(tree):
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            match member:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    if name.startswith("test_"):
                        yield member


class TidyCase(TestCase):
    """A test that collects complaints and fails with all of them."""

    def setUp(self) -> None:
        """Find the tree, or skip."""
        if not (TREE / "setup.cfg").exists():
            raise SkipTest("the source tree is not here")

    def check(self, complaints: list[str], remedy: str) -> None:
        """Fail if there is any complaint; say what to do about it."""
        if complaints:
            self.fail("\n".join([*complaints, f"=> {remedy}"]))


class SourceTests(TidyCase):
    """What holds for every module."""

    def test_files_are_short(self) -> None:
        """A module has at most 500 lines, a test module 900."""
        complaints = []
        for name, text, _ in sources():
            bound = TEST_FILE_LINES if name.startswith("test/") else FILE_LINES
            lines = text.count("\n")
            if lines > bound:
                complaints.append(f"{name} has {lines} lines, {bound} are allowed")
        self.check(complaints, "split it by idea, not by number")

    def test_functions_are_short(self) -> None:
        """A function has at most 70 lines, decorators and docstring included."""
        complaints = []
        for name, _, tree in sources():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                    lines = (node.end_lineno or first) - first + 1
                    if lines > FUNCTION_LINES:
                        complaints.append(f"{name}:{first} {node.name} has {lines} lines")
        self.check(complaints, f"{FUNCTION_LINES} are allowed; take a step out and name it")

    def test_class_names_say_something(self) -> None:
        """No class is called a manager, handler, processor, engine, helper or util."""
        complaints = []
        for name, _, tree in sources():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    words = re.findall(r"[A-Z]+[a-z]*", node.name)
                    if any(word.lower().rstrip("s") in BANNED_WORDS for word in words):
                        complaints.append(f"{name}:{node.lineno} class {node.name}")
        self.check(complaints, "name it after what it is or knows")

    def test_reactor_is_passed_in(self) -> None:
        """Only the twistd plugin's module and the command import the global reactor."""
        complaints = [
            f"{name}:{line}"
            for name, _, tree in sources()
            if not name.startswith(REACTOR_USERS)
            for line, module in imported(tree)
            if module.startswith("twisted.internet.reactor")
        ]
        self.check(complaints, "take the reactor as an argument")

    def test_modules_name_their_tests(self) -> None:
        """A module has ``test_<its name>.py`` or names existing tests in its docstring."""
        known = {path.stem for path in TESTS.glob("test_*.py")}
        complaints = []
        for name, _, tree in sources():
            path = Path(name)
            if name in UNTESTED or name.startswith("test/") or path.stem.startswith("__"):
                continue
            named = set(re.findall(r"``(test_\w+)``", ast.get_docstring(tree) or ""))
            complaints += [f"{name} names {test}, which is not there" for test in named - known]
            if not named and f"test_{path.stem}" not in known:
                complaints.append(f"{name} has no test module")
        self.check(complaints, 'write it, or end the docstring with "Tests: ``test_x``."')

    def test_twisted_is_not_hidden(self) -> None:
        """The plugin's folders are no packages: they would hide Twisted's own."""
        complaints = [str(path) for path in (TREE / "twisted").rglob("__init__.py")]
        self.check(complaints, "remove it")


class TestsTests(TidyCase):
    """What holds for every test."""

    def test_tests_say_the_behaviour(self) -> None:
        """Every test method has a docstring."""
        complaints = [
            f"{name}:{method.lineno} {method.name}"
            for name, _, tree in sources(TESTS)
            for method in tests_of(tree)
            if not ast.get_docstring(method)
        ]
        self.check(complaints, "say in one line which behaviour it shows")

    def test_no_coroutine_is_a_test(self) -> None:
        """No test is ``async def``: trial's synchronous case passes it without running it.

        The tests of real processes stand on trial's asynchronous case, which does run them.
        """
        complaints = [
            f"{name}:{method.lineno} {method.name}"
            for name, _, tree in sources(TESTS)
            for method in tests_of(tree)
            if isinstance(method, ast.AsyncFunctionDef) and not name.startswith(REAL_PROCESSES)
        ]
        self.check(complaints, "use successResultOf(Deferred.fromCoroutine(...))")

    def test_nothing_sleeps(self) -> None:
        """No test waits on the wall clock."""
        complaints = []
        for name, _, tree in sources(TESTS):
            lines = [line for line, module in imported(tree) if module == "time.sleep"]
            lines += [
                node.lineno
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep"
            ]
            complaints += [f"{name}:{line}" for line in lines]
        self.check(complaints, "advance a clock or the simulated world")

    def test_state_machines_run(self) -> None:
        """No Hypothesis machine relies on its ``.TestCase``, which trial does not collect."""
        complaints = [
            f"{name}:{node.lineno} {ast.unparse(node)}"
            for name, _, tree in sources(TESTS)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "TestCase"
            if isinstance(node.value, ast.Name) and node.value.id[0].isupper()
        ]
        self.check(complaints, "call support.run_machine(...) in a test method")

    def test_limits_are_reached(self) -> None:
        """Every bound in ``limits`` is named by at least one test."""
        names = [
            node.target.id
            for path in sorted((PACKAGE / "limits").iterdir())
            if path.suffix == ".py"
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        ]
        named: set[str] = set()
        for path in TESTS.glob("test_*.py"):
            named.update(re.findall(r"\blimits\.([A-Z0-9_]+)", path.read_text(encoding="utf-8")))
        complaints = [f"limits.{name}" for name in names if name not in named | UNITS]
        self.assertGreater(len(names), 0)
        self.check(complaints, "test what happens at the bound, or remove a bound nobody meets")


class NewsTests(TidyCase):
    """What holds for the news fragments."""

    def test_fragments_say_something(self) -> None:
        """Every fragment has a known kind and a text."""
        complaints = []
        for path in sorted((TREE / "newsfragments").iterdir()):
            if path.name in {"README.md", ".gitignore"}:
                continue
            if FRAGMENT_KINDS.isdisjoint(path.name.split(".")[1:]):
                complaints.append(f"{path.name} names none of {sorted(FRAGMENT_KINDS)}")
            elif not path.read_text(encoding="utf-8").strip():
                complaints.append(f"{path.name} is empty")
        self.check(complaints, "see newsfragments/README.md")


class UnitTests(TidyCase):
    """What holds for the systemd units."""

    def test_units_share_their_sandbox(self) -> None:
        """From its stop time on, the unit of one descriptor equals the unit of the machine."""
        units = [
            (TREE / "systemd" / name).read_text(encoding="utf-8").partition("\n# Stopping")
            for name in ("p2pdist.service", "p2pdist@.service")
        ]
        self.assertIn("ProtectSystem=strict", units[0][2])
        self.assertEqual(units[0][2], units[1][2])
