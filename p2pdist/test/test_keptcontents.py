"""Tests of contents that were added while the node ran, and are there again at the next start."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs

from p2pdist import limits
from p2pdist.control import Control
from p2pdist.descriptor import DescriptorParser
from p2pdist.ids import HashKey, format_hash_key
from p2pdist.keptcontents import Given, KeptContents
from p2pdist.secretfile import write_secret_file
from p2pdist.signers import Signers
from p2pdist.storage.statedir import StateDirectory
from p2pdist.test.fakes import ImmediateWorkers
from p2pdist.test.servicesworld import Station
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import STATE
from p2pdist.test.support import TestCase, given
from p2pdist.test.test_sim_swarm import lan

KEY = HashKey(b"k" * 32)
LINK = f"p2pdist:{format_hash_key(KEY)}?n=10.0.0.9:7667&name=model"
NOBODY = Signers(source="signers", lines=(), now=lambda: 0.0)
TEXT = f'hash_key = "{format_hash_key(KEY)}"\nname = "modèle"  # "ours"\n'


class NodeCase(TestCase):
    """A node that is told to take contents."""

    def setUp(self):
        """Start it."""
        self.world = lan()
        self.station = Station.at(self.world, "10.0.0.1")
        self.parser = DescriptorParser()
        self.start()

    def start(self) -> list[str]:
        """Start the node as twistd does; return what was logged as an error or a warning."""
        service = self.station.build()
        with capturedLogs() as events:
            service.added.take(service.added.read(self.parser), service.contents)
        self.station.begin(service)
        self.service = service
        self.control = Control(service, self.parser)
        return [
            event["log_format"].format(**event)
            for event in events
            if event["log_level"] >= LogLevel.warn
        ]

    def restart(self) -> list[str]:
        """Stop it in order and start it again."""
        self.station.stop()
        return self.start()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of a request."""
        result: dict[str, Any] = self.world.wait_for(self.control.call(method, params))
        return result

    @property
    def served(self) -> list[str | None]:
        """The names of what is served."""
        return [one.descriptor.name for one in self.service.contents.sessions.values()]

    def file(self, text: str = TEXT) -> Path:
        """Return a descriptor's file."""
        path = Path(self.mktemp()).absolute()
        path.write_text(text, encoding="utf-8")
        return path


class RestartTests(NodeCase):
    """From one process to the next."""

    def test_link(self):
        """A link that was added is there again, with its nodes and the place of its content."""
        self.ask("add", descriptor=LINK, path="/elsewhere/model")
        self.assertEqual([], self.restart())
        self.assertEqual(["model"], self.served)
        session = self.station.session
        self.assertEqual("/elsewhere/model", session.place.path)
        self.assertEqual(LINK, session.descriptor.to_uri())

    def test_file(self):
        """A descriptor is kept word for word: its own file may be gone."""
        path = self.file()
        self.ask("add", descriptor=str(path))
        path.unlink()
        self.assertEqual([], self.restart())
        self.assertEqual(["modèle"], self.served)
        self.assertEqual(str(path), self.station.session.descriptor.source)

    def test_power_cut(self):
        """Once the command has ended, no crash loses what it said."""
        self.ask("add", descriptor=LINK)
        self.station.host.crash()
        self.start()
        self.assertEqual(["model"], self.served)

    def test_remove(self):
        """What was removed does not come again; removing what was not added is fine."""
        self.ask("add", descriptor=LINK)
        self.ask("remove")
        self.restart()
        self.assertEqual([], self.served)
        self.service.add(self.parser.parse_uri(LINK))
        self.ask("remove")

    def test_refused(self):
        """What a node cannot take is not kept."""
        self.ask("add", descriptor=LINK)
        other = LINK.replace("6b6b", "7c7c", 1)
        self.failureResultOf(self.control.call("add", {"descriptor": other}))
        self.restart()
        self.assertEqual(1, len(self.served))

    def test_unusable(self):
        """What cannot be used any more is named, with its record; the others are served."""
        secret = self.mktemp()
        path = self.file(f'{TEXT}secret_file = "{Path(secret).absolute()}"\n')
        write_secret_file(secret, lambda size: b"s" * size)
        self.ask("add", descriptor=str(path))
        Path(secret).unlink()
        self.station.stop()
        self.station.disk.put(f"{STATE}/added/{'ab' * 32}", b"{")
        self.station.disk.put(f"{STATE}/added/notes", b"{")
        damaged, unusable = self.start()
        self.assertIn(f"{'ab' * 32} is damaged; add", damaged)
        self.assertIn(f"secret_file: {str(Path(secret).absolute())!r} cannot be read", unusable)
        self.assertIn(f"remove {STATE}/added/{KEY.hex()} to forget it", unusable)
        self.assertEqual([], self.served)

    def test_signers_are_asked_again(self):
        """What nobody signs who is asked for now is not served; it is kept for better days."""
        self.ask("add", descriptor=LINK)
        self.parser = DescriptorParser(NOBODY)
        (error,) = self.restart()
        self.assertIn("cannot carry a signature", error)
        self.assertEqual([], self.served)
        self.parser = DescriptorParser()
        self.restart()
        self.assertEqual(["model"], self.served)

    def test_reload(self):
        """At a reload what nobody signs any more is given up, but for what a file names too."""
        self.ask("add", descriptor=LINK)
        kept = self.service.added.read(DescriptorParser(NOBODY))
        self.service.added.take(kept, self.service.contents, lambda key: key == KEY)
        self.assertEqual(["model"], self.served)
        self.service.added.take(kept, self.service.contents)
        self.world.run(1)
        self.assertEqual([], self.served)

    def test_without_state_directory(self):
        """Nothing is kept, and nothing fails."""
        kept = KeptContents(ImmediateWorkers())
        self.successResultOf(kept.keep(KEY, Given(LINK)))
        self.successResultOf(kept.forget(KEY))
        self.assertEqual([], kept.read(self.parser))

    def test_paused(self):
        """A paused content stays so at a reload."""
        self.ask("add", descriptor=LINK)
        self.ask("pause")
        self.service.added.take(self.service.added.read(self.parser), self.service.contents)
        self.assertEqual([], self.served)


class RecordTests(TestCase):
    """The files."""

    def setUp(self):
        """Open a state directory."""
        self.disk = SimDisk()
        self.state = StateDirectory.open(self.disk, "/state")
        self.kept = KeptContents(ImmediateWorkers(), self.state)

    def test_bounds(self):
        """The largest record fits into ADDED_BYTES; one that is larger counts as damaged."""
        long = "\x01" * limits.DESCRIPTOR_BYTES
        path = "/" + "é" * 2047
        largest = Given(path, long, "\xff" * limits.SIGNATURE_BYTES, path)
        self.successResultOf(self.kept.keep(KEY, largest))
        ((key, data),) = self.state.load_added()
        self.assertEqual((KEY, largest), (key, Given.decode(data)))
        self.state.save_added(KEY, b" " * (limits.ADDED_BYTES + 1))
        self.assertEqual([(KEY, b"")], self.state.load_added())

    def test_many(self):
        """At most as many come back as one process serves."""
        self.patch(limits, "DESCRIPTORS", 3)
        for number in range(5):
            key = HashKey(bytes([number]) * 32)
            link = Given(f"p2pdist:{format_hash_key(key)}")
            self.successResultOf(self.kept.keep(key, link))
        self.assertEqual(3, len(self.kept.read(DescriptorParser())))

    def test_full_disk(self):
        """What cannot be saved is told; the node goes on."""
        self.disk.failing["write"] = [errno.ENOSPC]
        with capturedLogs() as events:
            self.successResultOf(self.kept.keep(KEY, Given(LINK)))
        (event,) = (one for one in events if one["log_level"] == LogLevel.warn)
        self.assertIn("not saved", event["log_format"])

    def test_another_content(self):
        """A record whose descriptor names another content than its file is passed over."""
        self.successResultOf(self.kept.keep(HashKey(bytes(32)), Given(LINK)))
        self.assertEqual([], self.kept.read(DescriptorParser()))

    @given(st.binary(max_size=60) | st.recursive(st.none() | st.text(max_size=3), st.lists))
    def test_any_bytes(self, data: Any):
        """Whatever a file holds, it is a record or none."""
        raw = data if isinstance(data, bytes) else json.dumps({"source": data}).encode()
        found = Given.decode(raw)
        self.assertTrue(found is None or isinstance(found.source, str))
