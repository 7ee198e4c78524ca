"""Tests for :mod:`p2pdist.swarm.transfer` and :mod:`p2pdist.swarm.exchange`: honest nodes.

Production transfers, listeners and stores in the simulated network; hostile ones are in
``test_hostile``.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from p2pdist import limits
from p2pdist.content import FileEntry, Metadata, hash_piece
from p2pdist.descriptor import Descriptor
from p2pdist.errors import StorageError
from p2pdist.test.network import World
from p2pdist.test.storehouse import DATA, PIECE, Content, content
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import SwarmNode, file_of


class LargePieces(Content):
    """A content of other than the smallest pieces."""

    def descriptor(self, **changes: Any) -> Descriptor:
        """Return a descriptor as ``make`` writes it."""
        return super().descriptor(piece_length=self.metadata.piece_length, **changes)


class SwarmCase(TestCase):
    """A world, and the questions asked in all of it."""

    def setUp(self) -> None:
        """An empty world with links of a few milliseconds."""
        self.world = World(1)
        self.world.link(delay=(0.001, 0.005))
        self.nodes: list[SwarmNode] = []

    def swarm(self, count: int, content: Content) -> list[SwarmNode]:
        """Make nodes; the first is the seed, the others have nothing and know those before."""
        made = [SwarmNode(self.world, number + 1, content) for number in range(count)]
        self.nodes += made
        made[0].seed()
        for node in made[1:]:
            node.leech()
        for number, node in enumerate(made):
            node.meet(*made[:number])
        return made

    def node(self, number: int, content: Content) -> SwarmNode:
        """Make one more node."""
        self.nodes.append(SwarmNode(self.world, number, content))
        return self.nodes[-1]

    def finish(self, nodes: list[SwarmNode], timeout: float = 300.0) -> None:
        """Run until all are complete; fail unless every copy is equal to the original."""
        self.world.run_until(lambda: all(node.complete for node in nodes), timeout)
        for node in nodes:
            self.assertEqual(node.content.data, node.saved())

    def stop(self) -> None:
        """Stop all; fail if anything is left anywhere."""
        for node in self.nodes:
            node.stop()
        self.world.run(limits.CLOSE_S)
        for node in self.nodes:
            self.assertEqual([], node.host.leaks())
            self.assertEqual(0, node.admission.count)
            self.assertEqual(0, node.budget.used_bytes)


class CopyTests(SwarmCase):
    """Every copy is equal."""

    def test_two_nodes(self) -> None:
        """A leecher fetches metadata and pieces from a seed, and its events tell the story."""
        seed, leech = self.swarm(2, file_of(5, short=100))
        self.finish([seed, leech])
        names = [event[0] for event in leech.events.seen]
        self.assertEqual(["metadata_arrived", "store_opened"], names[:2])
        self.assertEqual(
            [0, 1, 2, 3, 4], sorted(e[1] for e in leech.events.named("piece_verified"))
        )
        self.assertEqual(["completed"], names[7:])
        self.assertEqual([("store_opened", True), ("completed",)], seed.events.seen)
        self.assertEqual(len(seed.content.data), seed.progress.uploaded_bytes)
        self.stop()

    def test_five_nodes(self) -> None:
        """Five nodes end with equal copies, and each fetched hardly more than one."""
        made = self.swarm(5, file_of(40))
        self.finish(made)
        size = len(made[0].content.data)
        for node in made[1:]:
            self.assertLess(node.progress.downloaded_bytes, 1.1 * size)
        self.stop()

    def test_ten_nodes_spare_the_seed(self) -> None:
        """On equal lines the seed sends little more than one copy, the swarm does the rest."""
        self.world.link(delay=0.002, bandwidth=2_000_000.0)
        made = self.swarm(10, file_of(96))
        self.finish(made)
        size = len(made[0].content.data)
        self.assertLess(made[0].progress.uploaded_bytes, 1.6 * size)
        given = sum(node.progress.uploaded_bytes for node in made[1:])
        self.assertLess(7 * size, given)
        self.stop()

    def test_same_seed_same_story(self) -> None:
        """The same world gives the same trace: no decision hangs on chance that is not injected."""
        hashes = []
        for _ in range(2):
            self.setUp()
            self.finish(self.swarm(4, file_of(12)))
            hashes.append(self.world.trace_hash())
        self.assertEqual(hashes[0], hashes[1])

    def test_empty_file(self) -> None:
        """A file of no bytes is complete as soon as its metadata is there."""
        seed, leech = self.swarm(2, content({"nothing": 0}))
        self.finish([seed, leech])
        self.assertEqual(0, leech.progress.downloaded_bytes)
        self.stop()

    def test_folder(self) -> None:
        """A folder with an empty file in it arrives whole."""
        made = self.swarm(3, content({"tree/a": 10, "tree/b": 0, "tree/c": 3 * PIECE}))
        self.finish(made)
        self.stop()

    def test_zero_pieces_do_not_travel(self) -> None:
        """Pieces of zeros are neither asked for nor sent."""
        seed, leech = self.swarm(2, file_of(6, zeros=(1, 2, 5)))
        self.finish([seed, leech])
        self.assertEqual(3 * PIECE, seed.progress.uploaded_bytes)
        self.assertEqual(3, len(leech.events.named("piece_verified")))
        self.stop()

    def test_large_pieces(self) -> None:
        """A piece larger than the whole budget is fetched all the same, one at a time."""
        size = limits.PIECE_LENGTH_MAX
        data = bytes([7]) * (2 * size + 5)
        entry = FileEntry(("big",), len(data), executable=False)

        hashes = b"".join(hash_piece(data[at : at + size]) for at in range(0, len(data), size))
        made = self.swarm(2, LargePieces(Metadata(size, (entry,), hashes), data))
        made[1].budget.limit_bytes = size // 2
        self.finish(made)
        self.stop()


class RelayTests(SwarmCase):
    """No machine is special."""

    def test_seed_dies_after_one_copy(self) -> None:
        """When the seed dies with one copy out, the others finish among themselves."""
        self.world.link(delay=0.002, bandwidth=2_000_000.0)
        made = self.swarm(5, file_of(48))

        def one_copy_is_out() -> bool:
            events = [event for node in made[1:] for event in node.events.named("piece_verified")]
            return len({event[1] for event in events}) == 48

        self.world.run_until(one_copy_is_out, 100)
        self.assertLess(made[0].progress.uploaded_bytes, 1.6 * len(made[0].content.data))
        made[0].host.crash()
        self.finish(made[1:])

    def test_metadata_travels_on(self) -> None:
        """A node that never met the seed gets metadata and pieces from a leecher."""
        content = file_of(30)
        seed, middle = self.swarm(2, content)
        far = self.node(3, content)
        far.leech()
        far.meet(middle)
        self.finish([seed, middle, far])
        self.stop()

    def test_seed_arrives_last(self) -> None:
        """Nodes that wait without metadata say so, and go on when a seed comes."""
        content = file_of(4)
        first, second = self.node(1, content), self.node(2, content)
        for node in (first, second):
            node.leech()
        self.assertEqual("peers", first.progress.waiting_for)
        second.meet(first)
        self.world.run(5)
        waiting = "a peer that has the metadata (none of 1 peer has it)"
        self.assertEqual(waiting, first.progress.waiting_for)
        seed = self.node(3, content)
        seed.seed()
        seed.meet(first, second)
        self.finish(self.nodes)
        self.stop()

    def test_nothing_is_asked_before_the_disk_was_looked_at(self) -> None:
        """Peers may call while a node still hashes; what they know is asked for afterwards.

        Else two would open the same download, and the second would call it in use.
        """
        content = file_of(6)
        seed, leech = self.node(1, content), self.node(2, content)
        seed.seed()
        seed.meet(leech)
        self.world.run(10)
        self.assertEqual(1, len(leech.transfer.connections()))
        self.assertEqual([], leech.events.seen, "connected, and that is all")
        leech.leech()
        self.finish([leech], timeout=20)
        self.stop()

    def test_missing_piece_is_named(self) -> None:
        """When nobody connected has the last piece, the transfer says which one it waits for."""
        content = file_of(4)
        seed, leech = self.swarm(2, content)
        seed.disk.flip(f"{DATA}/file.bin", 2 * PIECE + 5)
        seed.disk.touch(f"{DATA}/file.bin")
        self.world.run_until(lambda: leech.progress.have_pieces == 3, 60)
        self.world.run(limits.RATE_WINDOW_S + 1)
        waiting = "a peer that has piece 2 (nobody connected has it)"
        self.assertEqual(waiting, leech.progress.waiting_for)
        self.assertEqual(3 * PIECE, leech.progress.have_bytes)

    def test_half_of_them_crash(self) -> None:
        """When half of the leechers crash midway the others finish."""
        self.world.link(delay=0.002, bandwidth=2_000_000.0)
        made = self.swarm(6, file_of(48))
        self.world.run_until(lambda: made[1].progress.have_pieces > 10, 100)
        for node in made[3:]:
            node.host.crash()
        self.finish(made[:3])

    def test_partition_heals(self) -> None:
        """A cut network goes on where it was, some time after it heals."""
        self.world.link(delay=0.002, bandwidth=1_000_000.0)
        seed, leech = self.swarm(2, file_of(48))
        self.world.run_until(lambda: leech.progress.have_pieces > 5, 60)
        self.world.partition([seed.host], [leech.host])
        self.world.run(40)
        self.assertFalse(leech.complete)
        self.world.heal()
        self.finish([seed, leech], timeout=2 * limits.DIAL_RETRY_S[1])


class LifeTests(SwarmCase):
    """Around the exchange."""

    def test_complete_nodes_part(self) -> None:
        """Nodes that are complete keep DONE_PEERS connections or fewer, and dial no more."""
        made = self.swarm(limits.DONE_PEERS + 4, file_of(4))
        self.finish(made)
        self.world.run(limits.DONE_LINGER_S + 2 * limits.REST_TICK_S)
        before = self.world.trace_hash()
        peers = [node.progress.peers for node in made]
        self.assertLessEqual(max(peers), limits.DONE_PEERS)
        self.assertGreater(max(peers), 0)
        tcp = len([record for record in self.world.trace if record.kind == "syn"])
        self.world.run(200)
        after = len([record for record in self.world.trace if record.kind == "syn"])
        self.assertEqual(tcp, after, before)
        self.stop()

    def test_seed_serves_who_comes_later(self) -> None:
        """A seed alone for long serves the next newcomer that dials it."""
        content = file_of(4)
        seed, _ = made = self.swarm(2, content)
        self.finish(made)
        self.world.run(100)
        late = self.node(7, content)
        late.leech()
        late.meet(seed)
        self.finish([late])
        self.assertEqual("", late.progress.waiting_for)

    def test_seed_calls_whoever_cannot(self) -> None:
        """A leecher whose calls are blocked is served over the connection the seed dials."""
        content = file_of(4)
        seed, leech = self.node(1, content), self.node(2, content)
        seed.seed()
        leech.leech()
        seed.meet(leech, dial_now=False)
        self.world.run(limits.DIAL_WAIT_S - 0.5)
        self.assertEqual(0, leech.progress.peers)
        self.finish([leech])

    def test_blocked_tcp_is_told(self) -> None:
        """A peer that answers on UDP only is told to the session, and named while waiting."""
        content = file_of(4)
        leech, silent = self.node(1, content), self.node(2, content)
        silent.port.stopListening()
        leech.leech()
        leech.meet(silent)
        self.world.run(1)
        told = ("peer_unreachable", silent.address, "refused")
        self.assertEqual([told], leech.events.seen)
        waiting = "a connection to 1 peer (1 of them: UDP answers but TCP does not)"
        self.assertEqual(waiting, leech.progress.waiting_for)

    def test_stop_midway(self) -> None:
        """A stop in the middle of everything leaves no call, no socket and no memory behind."""
        self.world.link(delay=0.002, bandwidth=2_000_000.0)
        made = self.swarm(4, file_of(64))
        self.world.run_until(lambda: made[2].progress.have_pieces > 8, 60)
        self.stop()
        self.assertFalse(made[2].complete)
        self.world.wait_for(made[2].transfer.stop())

    def test_stop_at_any_moment(self) -> None:
        """Whenever a transfer is stopped in its first second, nothing is left."""
        for step in range(0, 120, 7):
            self.setUp()
            made = self.swarm(2, file_of(6))
            for _ in range(step):
                self.world.run(0.001)
            self.stop()
            del made

    def test_progress(self) -> None:
        """Rates, ETA and counts are those of the transfer."""
        self.world.link(delay=0.002, bandwidth=1_000_000.0)
        seed, leech = self.swarm(2, file_of(128))
        self.assertIsNone(leech.progress.length)
        self.world.run(6)
        progress = leech.progress
        self.assertEqual((128 * PIECE, 128), (progress.length, progress.pieces))
        self.assertEqual(progress.have_pieces * PIECE, progress.have_bytes)
        self.assertTrue(700_000 < progress.download_bytes_per_s < 1_100_000, progress)
        self.assertTrue(700_000 < seed.progress.upload_bytes_per_s < 1_300_000)
        assert progress.eta_s is not None
        self.assertTrue(2.0 < progress.eta_s < 8.0)
        self.assertEqual((1, 1, ""), (progress.peers, progress.seeds, progress.waiting_for))
        self.finish([leech])
        self.assertEqual(0.0, leech.progress.eta_s)

    def test_node_that_stood_still(self) -> None:
        """A caller whose first bytes are read after his deadline is no error of our own."""
        seed, leech = self.node(1, file_of(3)), self.node(2, file_of(3))
        seed.seed()
        leech.leech()
        self.world.link_between(leech.host, seed.host, delay=1.0)
        leech.meet(seed)
        self.world.run_until(lambda: seed.admission.count, 10)
        seed.host.pause()
        self.world.run(limits.HANDSHAKE_S + 1)
        seed.host.resume()
        self.finish([leech], timeout=60)

    def test_idle_connection_stays(self) -> None:
        """Two nodes that wait for a third keep their connection alive beyond IDLE_S."""
        content = file_of(4)
        first, second = self.node(1, content), self.node(2, content)
        for node in (first, second):
            node.leech()
        second.meet(first)
        self.world.run(1)
        dials = first.admission.count
        self.world.run(3 * limits.IDLE_S)
        self.assertEqual((1, dials), (first.progress.peers, first.admission.count))
        self.stop()


class DiskTests(SwarmCase):
    """Disks that are full or broken."""

    def test_full_disk_pauses(self) -> None:
        """On a full disk the download pauses, says why once, and goes on when there is room."""
        _, leech = self.swarm(2, file_of(8))
        self.world.run_until(lambda: leech.events.named("store_opened"), 10)
        leech.disk.failing["write"] = [errno.ENOSPC] * 3
        self.world.run(5)
        self.assertEqual(1, len(leech.events.named("paused")))
        self.assertIn("full", leech.progress.waiting_for)
        self.assertFalse(leech.complete)
        self.finish([leech], timeout=5 * limits.DISK_RETRY_S)
        self.assertEqual(1, len(leech.events.named("resumed")))
        self.stop()

    def test_no_room_for_the_store(self) -> None:
        """A disk that is full before anything was fetched is tried again too."""
        content = file_of(8)
        seed = self.node(1, content)
        seed.seed()
        leech = self.node(2, content)
        leech.disk.failing["write"] = [errno.ENOSPC]
        leech.leech()
        leech.meet(seed)
        self.world.run(5)
        self.assertEqual(1, len(leech.events.named("paused")))
        self.finish([leech], timeout=2 * limits.DISK_RETRY_S)
        self.stop()

    def test_disk_that_refuses_for_a_moment(self) -> None:
        """EIO and EMFILE pause, say so, and are over by themselves, when publishing too."""
        for call, code in (
            ("write", errno.EIO),
            ("link", errno.EIO),
            ("sync", errno.EMFILE),
            ("open_file CREATE", errno.ENFILE),
        ):
            _, leech = self.swarm(2, file_of(8))
            leech.disk.failing[call] = [code]
            self.world.run(5)
            self.assertEqual(1, len(leech.events.named("paused")), call)
            self.assertIn(os.strerror(code), leech.progress.waiting_for)
            self.finish([leech], timeout=3 * limits.DISK_RETRY_S)
            self.assertEqual([], leech.events.named("failed"))
            self.stop()
            self.setUp()

    def test_unreadable_piece_is_withdrawn(self) -> None:
        """A seed whose file was changed does not serve the wrong piece; others still may."""
        content = file_of(6)
        seed, other = self.node(1, content), self.node(2, content)
        for node in (seed, other):
            node.seed()
        leech = self.node(3, content)
        seed.disk.flip(f"{DATA}/file.bin", 3 * PIECE + 1)
        seed.disk.touch(f"{DATA}/file.bin")
        leech.leech()
        leech.meet(seed)
        self.world.run(5)
        self.assertEqual(5, leech.progress.have_pieces)
        [failed] = seed.events.named("failed")
        self.assertIsInstance(failed[1], StorageError)
        leech.meet(other)
        self.finish([leech])
        self.stop()

    def test_only_copy_that_cannot_be_read_for_a_while(self) -> None:
        """A seed's pieces that its disk refuses to give are served once it gives them again."""
        seed, leech = self.swarm(2, file_of(6))
        seed.disk.failing["read"] = [errno.EIO] * 4
        self.world.run(limits.DISK_RETRY_S / 2)
        self.assertFalse(leech.complete)
        self.assertLess(seed.progress.have_pieces, 6)
        self.finish([leech], timeout=2 * limits.DISK_RETRY_S)
        self.assertEqual(6, seed.progress.have_pieces)
        self.stop()

    def test_store_that_cannot_be_opened(self) -> None:
        """Something else under the final name is told, and nothing is fetched."""
        content = file_of(3)
        seed, leech = self.node(1, content), self.node(2, content)
        seed.seed()
        leech.disk.put(f"{DATA}/file.bin", b"my diary")
        leech.leech()
        leech.meet(seed)
        self.world.run(5)
        self.assertEqual(1, len(leech.events.named("failed")))
        self.assertEqual(b"my diary", leech.saved())
        self.assertIn("file.bin", leech.progress.waiting_for)
        self.stop()

    def test_everything_is_served_while_paused(self) -> None:
        """A node whose disk is full still serves what it has."""
        content = file_of(8)
        seed, middle = self.node(1, content), self.node(2, content)
        seed.seed()
        middle.leech()
        middle.meet(seed)
        self.world.run_until(lambda: middle.progress.have_pieces >= 3, 60)
        middle.disk.failing["write"] = [errno.ENOSPC] * 1000
        self.world.run(2)
        seed.stop()
        far = self.node(3, content)
        far.leech()
        far.meet(middle)
        had = middle.progress.have_pieces
        self.world.run_until(lambda: far.progress.have_pieces >= had, 60)
        self.nodes.remove(seed)


class BudgetTests(SwarmCase):
    """Memory for pieces on their way in."""

    def test_bounds_hold(self) -> None:
        """At no time are more than PIECES_IN_FLIGHT promised, or is more memory taken."""
        self.world.link(delay=0.002, bandwidth=2_000_000.0)
        made = self.swarm(6, file_of(32))
        most = [0, 0]

        def look() -> None:
            for node in made:
                most[0] = max(most[0], node.budget.used_bytes)
                self.assertLessEqual(node.budget.used_bytes, node.budget.limit_bytes)

        self.world.after_event.append(look)
        self.finish(made)
        self.assertLess(PIECE, most[0])

    def test_shared_budget(self) -> None:
        """A transfer that finds the shared budget taken waits for the others, and is woken."""
        content = file_of(6)
        seed, leech = self.node(1, content), self.node(2, content)
        seed.seed()
        leech.budget.limit_bytes = 10 * PIECE
        leech.budget.take(10 * PIECE)
        leech.leech()
        leech.meet(seed)
        self.world.run_until(lambda: leech.progress.have_pieces >= 1, 20)
        leech.budget.give(10 * PIECE)
        self.finish([leech])
        self.stop()
