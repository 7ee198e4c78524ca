"""What users install: the wheel's files, and that twistd finds the plugin in them.

Job: build a wheel from a copy of the tree, without network, and use it from an empty folder.
Skipped where the tree or setuptools' wheel builder is not there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from unittest import SkipTest

import twisted

from p2pdist import __version__
from p2pdist.test.support import TestCase

TREE = Path(__file__).resolve().parent.parent.parent
SHIPPED = ("setup.cfg", "pyproject.toml", "LICENSE", "README.md")
ASSETS = "p2pdist/web/assets"
TWISTD = "from twisted.scripts.twistd import run; run()"


def build_wheel(folder: Path) -> Path:
    """Copy the sources into ``folder``, build there, return the wheel."""
    copy = folder / "tree"
    ignore = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in ("p2pdist", "twisted"):
        shutil.copytree(TREE / name, copy / name, ignore=ignore)
    for name in SHIPPED:
        shutil.copy(TREE / name, copy)
    pip(["wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(copy)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(arguments: list[str]) -> None:
    """Run pip without network and dependencies; an error's text is pip's output."""
    run([sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-index", "--quiet"])


def run(command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env=env,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command[:4]} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout


class WheelTests(TestCase):
    """The wheel, built once for each test."""

    def setUp(self) -> None:
        """Build, or skip where that cannot be."""
        if not (TREE / "setup.cfg").exists():
            raise SkipTest("the source tree is not here")
        try:
            setuptools = tuple(int(part) for part in version("setuptools").split(".")[:2])
        except PackageNotFoundError:
            setuptools = (0, 0)
        if setuptools < (70, 1):
            raise SkipTest("no setuptools 70.1 or newer, which builds wheels by itself")
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.wheel = build_wheel(self.folder)

    def twistd(self, *arguments: str) -> str:
        """Run twistd with the installed wheel, from an empty folder.

        ``-S`` keeps the tree out: it may be on the path by a .pth file of an editable install.
        """
        site = self.folder / "site"
        if not site.exists():
            pip(["install", "--target", str(site), str(self.wheel)])
            (self.folder / "empty").mkdir()
        dependencies = {
            str(Path(twisted.__file__).parent.parent): None,
            sysconfig.get_path("purelib"): None,
            sysconfig.get_path("platlib"): None,
        }
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *dependencies])}
        return run(
            [sys.executable, "-S", "-c", TWISTD, *arguments],
            cwd=self.folder / "empty",
            env=environment,
        )

    def test_contents(self) -> None:
        """The wheel holds package, plugin and licence, and nothing that would hide Twisted."""
        names = zipfile.ZipFile(self.wheel).namelist()

        self.assertEqual(f"p2pdist-{__version__}-py3-none-any.whl", self.wheel.name)
        self.assertEqual(
            ["twisted/plugins/p2pdist_plugin.py"],
            [name for name in names if name.startswith("twisted")],
        )
        self.assertIn("p2pdist/py.typed", names)
        self.assertIn("p2pdist/overlay/wire.py", names)
        assets = {f"{ASSETS}/{path.name}" for path in (TREE / ASSETS).iterdir()}
        self.assertGreater(len(assets), 0)
        self.assertLessEqual(assets, set(names))
        self.assertEqual(1, sum(name.endswith("/LICENSE") for name in names))
        self.assertEqual(
            {"p2pdist", "twisted", f"p2pdist-{__version__}.dist-info"},
            {name.partition("/")[0] for name in names},
        )

    def test_twistd_finds_the_plugin(self) -> None:
        """Installed from the wheel, twistd lists p2pdist and shows its options."""
        self.assertRegex(self.twistd("--help"), r"(?m)^\s+p2pdist\s+Tracker-less")

        options = self.twistd("p2pdist", "--help")
        for option in (
            "descriptor",
            "directory",
            "port",
            "listen",
            "state-dir",
            "node",
            "no-lan",
            "web",
        ):
            self.assertIn(f"--{option}", options)
