"""What the tree offers to service managers: units, container file, DaemonSet."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path
from unittest import SkipTest

from p2pdist.faces.tap import Options
from p2pdist.limits import DEFAULT_PORT, STOP_S
from p2pdist.test.support import TestCase

TREE = Path(__file__).resolve().parents[2]
SERVICES = ("p2pdist.service", "p2pdist@.service")
EXPOSURE = 13
"""Tenths: the most that ``systemd-analyze security`` may find."""


def known_options() -> set[str]:
    """Return the options of twistd p2pdist."""
    return {f"--{name.rstrip('=')}" for name in Options().longOpt}


class TreeCase(TestCase):
    """A test of the source tree."""

    def setUp(self):
        """Find it, or skip."""
        if not (TREE / "setup.cfg").exists():
            raise SkipTest("the source tree is not here")

    def text(self, name: str) -> str:
        """Return a file of the tree."""
        return (TREE / name).read_text(encoding="utf-8")


class SystemdTests(TreeCase):
    """The units."""

    def analyze(self, *arguments: str) -> tuple[int, str]:
        """Run systemd-analyze, or skip where there is none."""
        program = shutil.which("systemd-analyze")
        if program is None:
            raise SkipTest("systemd-analyze is not installed")
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    def test_exposure(self):
        """Neither service is exposed by more than 1.3."""
        for name in SERVICES:
            path = str(TREE / "systemd" / name)
            code, said = self.analyze(
                "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", path
            )
            self.assertEqual(0, code, said.splitlines()[-1:])

    def test_systemd_understands_them(self):
        """No directive is unknown or has a value systemd does not take."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        for name in (*SERVICES, "p2pdist.socket"):
            text = self.text(f"systemd/{name}").replace("/opt/p2pdist/bin/twistd", "/bin/true")
            (folder / name).write_text(text)
        units = [str(folder / name) for name in ("p2pdist.socket", "p2pdist@x.service")]
        (folder / "p2pdist@x.service").write_text((folder / SERVICES[1]).read_text())
        _, said = self.analyze("verify", "--man=no", str(folder / SERVICES[0]), *units)
        ours = [line for line in said.splitlines() if "p2pdist" in line]
        self.assertEqual([], ours)

    def test_options_and_times(self):
        """What the services call exists, they are told of readiness, and may stop in time."""
        for name in SERVICES:
            text = self.text(f"systemd/{name}")
            used = set(re.findall(r"(?<=\s)--[a-z-]+", text.partition("ExecReload")[0]))
            self.assertEqual(set(), used - known_options() - {"--nodaemon", "--pidfile"})
            values = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
            self.assertEqual(("notify", "main"), (values["Type"], values["NotifyAccess"]))
            self.assertLessEqual(int(values["WatchdogSec"]), 30)
            self.assertGreater(int(values["TimeoutStopSec"]), STOP_S)
            self.assertEqual("swarm.secret", values["LoadCredential"])

    def test_socket(self):
        """UDP and TCP of one port, which is the node's."""
        unit = ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read_string(self.text("systemd/p2pdist.socket"))
        port = str(DEFAULT_PORT)
        self.assertEqual(port, unit["Socket"]["ListenStream"])
        self.assertEqual(port, unit["Socket"]["ListenDatagram"])


class ContainerTests(TreeCase):
    """The container file and the DaemonSet."""

    def test_container_file(self):
        """Every line is an instruction, it does not run as root, and its options exist."""
        joined = self.text("deploy/Containerfile").replace("\\\n", " ")
        lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
        words = [line.split(maxsplit=1) for line in lines]
        known = {"FROM", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "STOPSIGNAL"}
        self.assertEqual(set(), {word for word, _ in words} - known - {"ENTRYPOINT", "CMD"})
        last = dict(words)
        self.assertEqual("7667:7667", last["USER"])
        self.assertEqual({"7667/tcp", "7667/udp"}, set(last["EXPOSE"].split()))
        parts = shlex.split(last["CMD"].strip("[]").replace(",", " "))
        used = {word for word in parts if word.startswith("--")}
        self.assertEqual(set(), used - known_options())

    def test_daemon_set(self):
        """It parses, runs as nobody, keeps its root read-only, and its options exist."""
        try:
            import yaml
        except ImportError:
            raise SkipTest("PyYAML is not installed") from None
        told = yaml.safe_load(self.text("deploy/daemonset.yaml"))
        self.assertEqual(("apps/v1", "DaemonSet"), (told["apiVersion"], told["kind"]))
        template = told["spec"]["template"]
        labels = told["spec"]["selector"]["matchLabels"]
        self.assertEqual(labels, template["metadata"]["labels"])
        pod = template["spec"]
        self.assertTrue(pod["securityContext"]["runAsNonRoot"])
        self.assertGreater(pod["terminationGracePeriodSeconds"], STOP_S)
        (container,) = pod["containers"]
        self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
        self.assertEqual({"drop": ["ALL"]}, container["securityContext"]["capabilities"])
        used = {word.partition("=")[0] for word in container["args"]}
        self.assertEqual(set(), used - known_options())
        ports = {(one["protocol"], one["hostPort"]) for one in container["ports"]}
        self.assertEqual({("TCP", DEFAULT_PORT), ("UDP", DEFAULT_PORT)}, ports)
        volumes = {one["name"] for one in pod["volumes"]}
        for one in (container, *pod["initContainers"]):
            self.assertEqual(set(), {m["name"] for m in one["volumeMounts"]} - volumes)
            self.assertIn("limits", one["resources"])
