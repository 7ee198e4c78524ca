"""Tests of what SIGHUP reads again, with real options and files and a simulated node."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import LogLevel, capturedLogs

from p2pdist.daemon.watching import Watching
from p2pdist.faces.rereading import Rereading
from p2pdist.faces.tap import Options
from p2pdist.ids import HashKey
from p2pdist.keptcontents import Given
from p2pdist.keys import NetworkKeys
from p2pdist.limits import MIB
from p2pdist.secretfile import write_secret_file
from p2pdist.signatures import public_key_of
from p2pdist.test.servicesworld import Station
from p2pdist.test.support import TestCase
from p2pdist.test.test_signatures import ED25519
from p2pdist.test.test_sim_swarm import lan

DESCRIPTOR = 'hash_key = "b3:{}"\nname = "{}"\nnodes = []\n'
KEY = public_key_of(ED25519).text


class RereadingTests(TestCase):
    """A node with a configuration file that changes."""

    def setUp(self):
        """Start it with one descriptor."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        for number, name in enumerate("ab"):
            text = DESCRIPTOR.format(f"{number + 1:064x}", name)
            (self.folder / f"{name}.desc").write_text(text)
        self.config = self.folder / "p2pdist.toml"
        self.start('descriptor = ["a.desc"]\n')

    def start(self, text: str) -> None:
        """Start the node."""
        self.config.write_text(text)
        options = Options()
        options.parseOptions(["--config", str(self.config), "--no-lan"])
        self.world = lan()
        station = Station.at(self.world, "10.0.0.1")
        self.service = station.run(*options.descriptors, secrets=options.config.secrets)
        machine = station.machine
        self.watching = Watching(
            self.service.contents, options.parser, machine.workers, machine.reactor
        )
        for descriptor in options.descriptors:
            self.watching.took(descriptor.source, descriptor)
        self.watching.setServiceParent(self.service)
        self.again = Rereading(options, self.service, self.watching, machine.workers)
        self.watching.rates_of = self.again.rates_of

    def hang_up(self, text: str) -> list[str]:
        """Change the file, reload; return what was logged as a warning or worse."""
        self.config.write_text(text)
        with capturedLogs() as events:
            self.world.wait_for(self.again.reload())
        return [
            event["log_format"].format(**event)
            for event in events
            if event["log_level"] >= LogLevel.warn
        ]

    @property
    def served(self) -> list[str]:
        """The names of what is served."""
        return [s.descriptor.name or "" for s in self.service.contents.sessions.values()]

    def test_descriptors(self):
        """What the file names is served, and what it names no more is not."""
        self.assertEqual([], self.hang_up('descriptor = ["b.desc"]\n'))
        self.assertEqual(["b"], self.served)

    def test_limits(self):
        """New limits hold at once, of the process and of contents, and gone ones are lifted."""
        both = 'upload-limit = ["5MB", "a=2MB"]\n'
        self.assertEqual([], self.hang_up(f'descriptor = ["a.desc"]\n{both}'))
        (session,) = self.service.contents.sessions.values()
        self.assertEqual(5 * MIB, self.service.contents.limits.upload)
        self.assertEqual(2 * MIB, session.limits.upload)
        self.hang_up('descriptor = ["a.desc"]\n')
        self.assertIsNone(self.service.contents.limits.upload)
        self.assertIsNone(session.limits.upload)

    def test_signers(self):
        """Signers asked for from now on refuse what they did not sign, also in later adds."""
        signers = self.folder / "signers"
        signers.write_text(f"me {KEY}\n")
        text = 'descriptor = ["a.desc"]\nallowed-signers = "signers"\n'
        (error,) = self.hang_up(text)
        self.assertIn("is not signed", error)
        self.assertEqual([], self.served)
        self.assertIsNotNone(self.watching.parser.signers)
        self.hang_up('descriptor = ["a.desc"]\n')
        self.assertEqual(["a"], self.served)

    def test_added(self):
        """Signers count for what was added while the node ran as well."""
        text = DESCRIPTOR.format(f"{2:064x}", "b")
        given = Given("/b.desc", text)
        self.service.add(given.descriptor(self.watching.parser))
        self.world.wait_for(self.service.added.keep(HashKey(bytes(31) + b"\2"), given))
        (self.folder / "signers").write_text(f"me {KEY}\n")
        errors = self.hang_up('descriptor = ["a.desc"]\nallowed-signers = "signers"\n')
        self.assertEqual([True, True], ["is not signed" in error for error in errors])
        self.assertEqual([], self.served)
        self.assertEqual([], self.hang_up('descriptor = ["a.desc"]\n'))
        self.assertEqual(["a", "b"], self.served)

    def test_secret_files(self):
        """A node is in the networks of new secrets at once."""
        secret = write_secret_file(str(self.folder / "s"), lambda size: b"s" * size)
        tag = NetworkKeys.from_secret(secret.raw).tag
        self.assertNotIn(tag, self.service.overlay.presences)
        self.hang_up('descriptor = ["a.desc"]\nsecret-file = ["s"]\n')
        self.assertIn(tag, self.service.overlay.presences)

    def test_what_cannot_change(self):
        """An option that needs a restart is named; nothing else of it happens."""
        (warning,) = self.hang_up('descriptor = ["a.desc"]\nport = 99\nname = "x"\n')
        self.assertIn("need a restart: --port, --name", warning)
        self.assertEqual([], self.hang_up('descriptor = ["a.desc"]\nport = 99\nname = "x"\n'))

    def test_bad_file(self):
        """A file that cannot be used changes no option; descriptors are read all the same."""
        (self.folder / "a.desc").write_text(DESCRIPTOR.format("7" * 64, "new"))
        (error,) = self.hang_up('upload-limit = ["fast"]\n')
        self.assertIn("expected a speed", error)
        self.assertIn("go on", error)
        self.assertEqual(["new"], self.served)
