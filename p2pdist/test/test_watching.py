"""Tests of following descriptor files: real ones, by a service in the simulated network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from attrs import evolve
from twisted.logger import capturedLogs

from p2pdist import limits
from p2pdist.daemon.watching import Watching, look_into
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.ids import HashKey
from p2pdist.secretfile import write_secret_file
from p2pdist.signatures import public_key_of
from p2pdist.signers import parse_signers
from p2pdist.swarm.throttle import RateLimits
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station
from p2pdist.test.support import TestCase
from p2pdist.test.test_signatures import ED25519

SIGNER = f"me {public_key_of(ED25519).text}\n".encode()


def descriptor(number: int, **more) -> Descriptor:
    """Return a descriptor of a content of its own."""
    return Descriptor(hash_key=HashKey(bytes([number]) * 32), name=f"file-{number}", **more)


class WatchingCase(TestCase):
    """A node and a folder."""

    def setUp(self):
        """Start the node; the folder is empty."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.world = World(1)
        self.station = Station.at(self.world, "10.0.0.1")
        self.service = self.station.run()
        machine = self.station.machine
        self.watching = Watching(
            self.service.contents,
            DescriptorParser(),
            machine.workers,
            machine.reactor,
            str(self.folder),
        )

    def start(self) -> None:
        """Begin to follow."""
        self.watching.setServiceParent(self.service)
        self.world.run(0.5)

    def put(self, name: str, told: Descriptor | str) -> Path:
        """Write a file."""
        path = self.folder / name
        path.write_text(told if isinstance(told, str) else told.to_toml())
        return path

    def look(self, times: int = 2) -> None:
        """Let it look so often."""
        self.world.run(times * limits.WATCH_EVERY_S)

    @property
    def served(self) -> list[str]:
        """The names of what is served."""
        sessions = self.service.contents.sessions.values()
        return sorted(session.descriptor.name or "" for session in sessions)


class FolderTests(WatchingCase):
    """A folder that is watched."""

    def test_what_is_there_at_the_start(self):
        """Every descriptor in the folder is taken at once; other files are none."""
        self.put("a.desc", descriptor(1))
        self.put("b.desc", descriptor(2))
        self.put("notes.txt", "no descriptor")
        self.put(".hidden.desc", descriptor(3))
        (self.folder / "folder.desc").mkdir()
        os.mkfifo(self.folder / "pipe.desc")
        self.start()
        self.assertEqual(["file-1", "file-2"], self.served)

    def test_added_changed_removed(self):
        """A new file adds a content, a changed one replaces it, one that is gone drops it."""
        self.start()
        path = self.put("a.desc", descriptor(1))
        self.look()
        self.assertEqual(["file-1"], self.served)
        path.write_text(descriptor(2).to_toml())
        self.look(3)
        self.assertEqual(["file-2"], self.served)
        path.unlink()
        self.look()
        self.assertEqual([], self.served)

    def test_half_written(self):
        """A file is taken when it looked the same twice: its last line may be the secret."""
        self.start()
        text = descriptor(1).to_toml()
        path = self.put("a.desc", text[: len(text) // 2])
        self.look(1)
        path.write_text(text)
        with capturedLogs() as events:
            self.look(1)
            self.assertEqual([], self.served)
            self.look(1)
        self.assertEqual(["file-1"], self.served)
        self.assertEqual([], [event for event in events if event["log_level"].name == "error"])

    def test_bad_file_loses_nothing(self):
        """A file that cannot be used any more is told once, with its line; the old goes on."""
        path = self.put("a.desc", descriptor(1))
        self.start()
        path.write_text("hash_key = 5\n")
        with capturedLogs() as events:
            self.look(5)
        (said,) = [event for event in events if event["log_level"].name == "error"]
        self.assertIn(f"{path}:1: hash_key", said["reason"])
        self.assertIn("goes on", said["kept"])
        self.assertEqual(["file-1"], self.served)
        path.write_text(descriptor(1).to_toml())
        self.look(3)
        self.assertEqual("", self.watching.files[str(path)].trouble)

    def test_new_content_that_is_refused(self):
        """If what a file says now cannot be served, what it said before is."""
        self.put("a.desc", descriptor(1))
        path = self.put("b.desc", descriptor(2))
        self.start()
        path.write_text(evolve(descriptor(3), name="file-1").to_toml())
        with capturedLogs() as events:
            self.look(3)
        self.assertIn("both go to", [e for e in events if "reason" in e][-1]["reason"])
        self.assertEqual(["file-1", "file-2"], self.served)

    def test_what_it_lacked_comes_later(self):
        """A file is tried again while it cannot be used: its secret may come after it."""
        path = self.put("a.desc", evolve(descriptor(1), secret_file="s.secret"))
        path.chmod(0o600)
        self.start()
        self.assertIn("s.secret", self.watching.files[str(path)].trouble)
        (self.folder / "s.secret").write_text("bad")
        self.look()
        before = self.watching.files[str(path)].trouble
        (self.folder / "s.secret").chmod(0o600)
        self.look()
        self.assertNotEqual(before, self.watching.files[str(path)].trouble)

    def test_two_files_of_one_content(self):
        """A content stays while any file names it."""
        self.put("a.desc", descriptor(1))
        second = self.put("b.desc", descriptor(1))
        self.start()
        second.unlink()
        self.look()
        self.assertEqual(["file-1"], self.served)

    def test_folder_that_is_gone(self):
        """A folder that cannot be looked into drops nothing, and is told once."""
        self.put("a.desc", descriptor(1))
        self.start()
        shutil.rmtree(self.folder)
        with capturedLogs() as events:
            self.look(3)
        self.assertEqual(["file-1"], self.served)
        (said,) = [event for event in events if "reason" in event]
        self.assertIn(str(self.folder), said["reason"])

    def test_paused_stays_paused(self):
        """The operator's pause counts more than a touched file."""
        path = self.put("a.desc", descriptor(1))
        self.start()
        self.world.wait_for(self.service.contents.pause(descriptor(1).hash_key))
        os.utime(path, (1, 1))
        self.look(3)
        self.assertEqual([], self.served)
        path.unlink()
        self.look()
        self.assertEqual({}, self.service.contents.paused)

    def test_too_many(self):
        """Beyond WATCH_FILES files are ignored, and how many is told."""
        for number in range(limits.WATCH_FILES + 3):
            (self.folder / f"{number:04}.desc").touch()
        sight = look_into(str(self.folder))
        self.assertEqual((limits.WATCH_FILES, 3), (len(sight.stamps), sight.ignored))

    def test_limits_of_options(self):
        """What options say a content may move holds for one that comes later."""
        self.watching.rates_of = lambda _: RateLimits(upload=limits.MIB)
        self.put("a.desc", descriptor(1))
        self.start()
        (session,) = self.service.contents.sessions.values()
        self.assertEqual(limits.MIB, session.limits.upload)

    def test_stop(self):
        """A stopped node looks no more, and leaves nothing behind."""
        self.start()
        self.station.stop()


class ReloadTests(WatchingCase):
    """A reload that is asked for."""

    def test_named_files(self):
        """Files of --descriptor are read again only then; a bad one loses nothing."""
        path = self.put("x.desc", descriptor(1))
        self.watching.folder = None
        self.service.add(descriptor(1))
        self.watching.took(str(path), descriptor(1))
        self.start()
        path.write_text(descriptor(2).to_toml())
        self.look(5)
        self.assertEqual(["file-1"], self.served)
        with capturedLogs() as events:
            self.world.wait_for(self.watching.reload())
        self.assertEqual(["file-2"], self.served)
        self.assertEqual((1, 0), next((e["good"], e["bad"]) for e in events if "good" in e))
        path.unlink()
        self.world.wait_for(self.watching.reload())
        self.assertEqual(["file-2"], self.served)

    def test_other_files_are_named(self):
        """What the options name no more is dropped at the next reload, what is new is taken."""
        first, second = self.put("a.desc", descriptor(1)), self.put("b.desc", descriptor(2))
        self.watching.folder = None
        self.service.add(descriptor(1))
        self.watching.took(str(first), descriptor(1))
        self.start()
        self.watching.name([str(second)])
        self.look(5)
        self.assertEqual(["file-1"], self.served)
        self.world.wait_for(self.watching.reload())
        self.assertEqual(["file-2"], self.served)

    def test_other_secrets(self):
        """A content whose secret file was changed leaves the old network for the new one."""
        secret = self.folder / "swarm.secret"
        told = descriptor(1, secret_file="swarm.secret").to_toml()
        write_secret_file(str(secret), lambda size: b"1" * size)
        self.put("a.desc", told)
        self.start()
        before = self.networks()
        secret.unlink()
        write_secret_file(str(secret), lambda size: b"2" * size)
        self.world.wait_for(self.watching.reload())
        self.assertEqual(1, len(self.networks()))
        self.assertNotEqual(before, self.networks())
        self.world.wait_for(self.service.contents.pause(descriptor(1).hash_key))
        secret.unlink()
        write_secret_file(str(secret), lambda size: b"1" * size)
        self.world.wait_for(self.watching.reload())
        self.service.contents.resume(descriptor(1).hash_key)
        self.assertEqual(before, self.networks(), "also when it was paused meanwhile")

    def networks(self) -> list[bytes]:
        """Return the tags of the networks of the only content."""
        (session,) = self.service.contents.sessions.values()
        return [presence.network.keys.tag for presence in session.presences]

    def test_signature_that_counts_no_more(self):
        """A reload drops what nobody signed who is asked for; a look at the folder does not."""
        path = self.put("a.desc", descriptor(1))
        self.start()
        self.watching.parser.signers = parse_signers(SIGNER, "signers", lambda: 0.0)
        path.touch()
        self.look(3)
        self.assertEqual(["file-1"], self.served, "its signature may be on its way")
        self.world.wait_for(self.watching.reload())
        self.assertEqual([], self.served)
        self.watching.parser.signers = None
        self.world.wait_for(self.watching.reload())
        self.assertEqual(["file-1"], self.served)

    def test_everything_is_read(self):
        """A new file is taken at once, and nodes named anew are asked."""
        path = self.put("a.desc", descriptor(1))
        self.start()
        self.put("b.desc", descriptor(2))
        text = descriptor(1).to_toml().replace("nodes = [", 'nodes = ["10.9.9.9:1"')
        path.write_text(text)
        self.world.wait_for(self.watching.reload())
        self.assertEqual(["file-1", "file-2"], self.served)
        session = self.service.contents.sessions[descriptor(1).hash_key]
        self.assertEqual(["10.9.9.9"], [node.host for node in session.nodes])
