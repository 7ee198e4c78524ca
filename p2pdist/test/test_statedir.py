"""Tests of :mod:`p2pdist.storage.statedir`."""

from __future__ import annotations

import contextlib
import errno
import random
from pathlib import Path

from p2pdist import limits
from p2pdist.errors import (
    AlreadyRunning,
    ConfigurationError,
    LocalProtocolError,
    StorageError,
)
from p2pdist.ids import HashKey
from p2pdist.keys import NodeKey
from p2pdist.storage.realdisk import RealDisk
from p2pdist.storage.statedir import StateDirectory, read_machine_id, saved_node_key
from p2pdist.test.simdisk import PowerLost, SimDisk, any_share
from p2pdist.test.support import TestCase

KEY = HashKey(bytes(range(32)))
OTHER = HashKey(bytes(32))


def entropy(seed: int = 0) -> random.Random:
    """Return a source of bytes."""
    return random.Random(seed)


class DirectoryCase(TestCase):
    """An open state directory."""

    def setUp(self) -> None:
        """Open it."""
        self.disk = SimDisk()
        self.state = StateDirectory.open(self.disk, "/var/lib/p2pdist")

    def next_process(self) -> StateDirectory:
        """Open it as the next process."""
        self.disk.kill()
        return StateDirectory.open(self.disk, "/var/lib/p2pdist")


class OpeningTests(DirectoryCase):
    """The directory itself."""

    def test_is_made_private(self) -> None:
        """With ``limits.STATE_DIR_MODE`` and everything above it."""
        self.assertEqual(limits.STATE_DIR_MODE, self.disk.mode("/var/lib/p2pdist"))
        self.assertEqual("/var/lib/p2pdist", self.state.path)

    def test_is_locked(self) -> None:
        """A second node is told where the first one is; after close it may have it."""
        error = self.assertRaises(
            AlreadyRunning, StateDirectory.open, self.disk, "/var/lib/p2pdist"
        )
        self.assertIn("/var/lib/p2pdist", str(error))
        self.state.close()
        self.assertEqual(0, self.disk.open_handles)
        StateDirectory.open(self.disk, "/var/lib/p2pdist")

    def test_others_may_not_write_to_it(self) -> None:
        """Else they could give us their key or their neighbours."""
        self.state.close()
        handle = self.disk.open_root("/var/lib/p2pdist")
        self.disk.chmod(handle, 0o770)
        self.disk.close(handle)
        error = self.assertRaises(
            ConfigurationError, StateDirectory.open, self.disk, "/var/lib/p2pdist"
        )
        self.assertIn("chmod 700", str(error))
        self.assertEqual(0, self.disk.open_handles)

    def test_trouble_names_the_path(self) -> None:
        """Whatever fails."""
        for call in ("make_root", "open_root", "open_file CREATE", "lock"):
            disk = SimDisk()
            disk.failing[call] = [errno.EACCES]
            error = self.assertRaises(StorageError, StateDirectory.open, disk, "/state")
            self.assertIn("/state", str(error))
            self.assertEqual(0, disk.open_handles)


class KeyTests(DirectoryCase):
    """node.key."""

    def test_is_made_once(self) -> None:
        """The next process has the same one, from a private file."""
        key = self.state.node_key(entropy().randbytes, b"machine")
        again = self.next_process().node_key(entropy(1).randbytes, b"machine")
        self.assertEqual(key.node_id, again.node_id)
        self.assertEqual(0o600, self.disk.mode("/var/lib/p2pdist/node.key"))

    def test_is_renewed_on_another_machine(self) -> None:
        """Two machines made from one image are two nodes."""
        key = self.state.node_key(entropy().randbytes, b"machine")
        clone = self.next_process().node_key(entropy(1).randbytes, b"its clone")
        self.assertNotEqual(key.node_id, clone.node_id)
        again = self.next_process().node_key(entropy(2).randbytes, b"its clone")
        self.assertEqual(clone.node_id, again.node_id)

    def test_holds_no_machine_id(self) -> None:
        """Only a hash of it: it is not ours to spread."""
        self.state.node_key(entropy().randbytes, b"confidential id")
        self.assertNotIn(b"confidential", self.disk.get("/var/lib/p2pdist/node.key"))

    def test_damaged_key_is_renewed(self) -> None:
        """It is only a name; nothing is lost with it."""
        key = self.state.node_key(entropy().randbytes, b"machine")
        data = self.disk.get("/var/lib/p2pdist/node.key")
        for damaged in (b"", data[:-1], data + b"x", b"x" + data[1:], bytes(1 << 20)):
            self.disk.put("/var/lib/p2pdist/node.key", damaged, mode=0o600)
            renewed = self.next_process().node_key(entropy(1).randbytes, b"machine")
            self.assertNotEqual(key.node_id, renewed.node_id)
            again = self.next_process().node_key(entropy(2).randbytes, b"machine")
            self.assertEqual(renewed.node_id, again.node_id)

    def test_readable_key_is_refused(self) -> None:
        """As ssh does it, with the remedy."""
        self.disk.put("/var/lib/p2pdist/node.key", b"", mode=0o640)
        error = self.assertRaises(ConfigurationError, self.state.node_key, entropy().randbytes, b"")
        self.assertIn("chmod 600", str(error))

    def test_survives_crashes(self) -> None:
        """A node whose key was given out once keeps it, whenever the power goes off."""
        for step in range(30):
            for seed in range(4):
                disk = SimDisk()
                state = StateDirectory.open(disk, "/state")
                disk.crash_before = len(disk.calls) + step
                key = None
                with contextlib.suppress(PowerLost):
                    key = state.node_key(entropy().randbytes, b"machine")
                disk.crash(any_share(random.Random(seed)))
                again = StateDirectory.open(disk, "/state").node_key(
                    entropy(1).randbytes, b"machine"
                )
                if key is not None:
                    self.assertEqual(key.node_id, again.node_id)

    def test_trouble_names_the_path(self) -> None:
        """A full disk, for one."""
        self.disk.capacity = 0
        error = self.assertRaises(StorageError, self.state.node_key, entropy().randbytes, b"")
        self.assertIn("/var/lib/p2pdist/node.key", str(error))


class WebTokenTests(DirectoryCase):
    """web-token."""

    def test_is_made_once(self) -> None:
        """It is 64 hexadecimal digits in a private file, and the same in every later run."""
        token = self.state.web_token(entropy().randbytes)
        self.assertRegex(token, r"\A[0-9a-f]{64}\Z")
        self.assertEqual(0o600, self.disk.mode("/var/lib/p2pdist/web-token"))
        self.assertEqual(token, self.next_process().web_token(entropy(1).randbytes))

    def test_damaged_one_is_renewed(self) -> None:
        """What is no key, or more than one, is replaced."""
        for data in (b"", b"secret\n", b"a" * 63, b"a" * 66, b"A" * 64):
            self.disk.put("/var/lib/p2pdist/web-token", data, mode=0o600)
            self.assertRegex(self.state.web_token(entropy().randbytes), r"\A[0-9a-f]{64}\Z")

    def test_readable_one_is_refused(self) -> None:
        """Others may know it."""
        self.disk.put("/var/lib/p2pdist/web-token", b"a" * 64, mode=0o640)
        error = self.assertRaises(ConfigurationError, self.state.web_token, entropy().randbytes)
        self.assertIn("remove it", str(error))

    def test_trouble_names_the_path(self) -> None:
        """A disk that cannot store it is a storage error."""
        self.disk.capacity = 0
        error = self.assertRaises(StorageError, self.state.web_token, entropy().randbytes)
        self.assertIn("/var/lib/p2pdist/web-token", str(error))


class NeighbourTests(DirectoryCase):
    """Whom to ask first."""

    def test_come_back(self) -> None:
        """What was saved last, also after a crash."""
        self.assertEqual(b"", self.state.load_neighbours())
        for data in (b"first", b"second"):
            self.state.save_neighbours(data)
        self.disk.crash(lambda: 0.0)
        state = StateDirectory.open(self.disk, "/var/lib/p2pdist")
        self.assertEqual(b"second", state.load_neighbours())

    def test_are_bounded(self) -> None:
        """``limits.SAVED_FILE_BYTES`` are saved and loaded, more are not."""
        most = bytes(limits.SAVED_FILE_BYTES)
        self.state.save_neighbours(most)
        self.assertEqual(most, self.state.load_neighbours())
        self.assertRaises(LocalProtocolError, self.state.save_neighbours, most + b"x")
        self.disk.put("/var/lib/p2pdist/neighbours", most + b"x")
        self.assertEqual(b"", self.state.load_neighbours())

    def test_unreadable_ones_are_none(self) -> None:
        """A node can start without; but saving says what is wrong."""
        self.state.save_neighbours(b"some")
        self.disk.failing["read"] = [errno.EIO]
        self.assertEqual(b"", self.state.load_neighbours())
        self.disk.failing["write"] = [errno.ENOSPC]
        self.assertRaises(StorageError, self.state.save_neighbours, b"others")
        self.assertEqual(b"some", self.state.load_neighbours())


class RealTests(TestCase):
    """On the operating system's files."""

    def test_whole_life(self) -> None:
        """Open, use, close, open again."""
        path = Path(self.mktemp()).absolute() / "state"
        state = StateDirectory.open(RealDisk(), str(path))
        key = state.node_key(entropy().randbytes, read_machine_id())
        state.save_neighbours(b"neighbours")
        self.assertRaises(AlreadyRunning, StateDirectory.open, RealDisk(), str(path))
        state.close()
        self.assertEqual(0o700, path.stat().st_mode & 0o777)
        self.assertEqual(0o600, (path / "node.key").stat().st_mode & 0o777)
        state = StateDirectory.open(RealDisk(), str(path))
        self.assertEqual(
            key.node_id, state.node_key(entropy(1).randbytes, read_machine_id()).node_id
        )
        self.assertEqual(b"neighbours", state.load_neighbours())
        state.close()


class SavedKeyTests(DirectoryCase):
    """The key as somebody else than its node reads it."""

    def saved(self, machine: bytes = b"machine") -> NodeKey:
        """Read it."""
        return saved_node_key(self.disk, "/var/lib/p2pdist", machine)

    def test_read_beside_the_node(self) -> None:
        """The key of a running node is read, and stays as it is."""
        made = self.state.node_key(entropy().randbytes, b"machine")
        before = self.disk.get("/var/lib/p2pdist/node.key")
        self.assertEqual(made.node_id, self.saved().node_id)
        self.assertEqual(before, self.disk.get("/var/lib/p2pdist/node.key"))

    def test_none_is_made(self) -> None:
        """Where there is none, or none that the node would use, that is said."""
        self.assertIn("is not there", str(self.assertRaises(StorageError, self.saved)))
        self.state.node_key(entropy().randbytes, b"machine")
        error = self.assertRaises(StorageError, self.saved, b"other machine")
        self.assertIn("another machine", str(error))

    def test_others_may_not_read_it(self) -> None:
        """A key that others may read is refused here too."""
        self.disk.put("/var/lib/p2pdist/node.key", b"x", mode=0o644)
        self.assertRaises(ConfigurationError, self.saved)
