"""One content at close range."""

from __future__ import annotations

from base64 import b64decode

from p2pdist.closeup import PieceMap, peers, pieces
from p2pdist.stages import Stage
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import PIECE, content
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan


class CloseupTests(TestCase):
    """A download from one seed."""

    def setUp(self):
        """Start both."""
        self.made = content({"model.bin": 40 * PIECE})
        self.world = lan()
        self.seed = Station.at(self.world, "10.0.1.1")
        self.seed.store(self.made)
        self.seed.run(self.made.descriptor())
        self.world.run(2)
        self.leech = Station.at(self.world, "10.0.1.2")
        self.leech.run(pointing(self.made, self.seed))

    def finish(self) -> None:
        """Let the download end."""
        self.world.run_until(lambda: self.leech.session.stage is Stage.SEEDING, timeout=60)

    def test_before_the_metadata(self):
        """Without metadata there are no pieces, and no peers."""
        self.assertEqual(PieceMap(), PieceMap.of(self.leech.session))
        answer = pieces(self.leech.session)
        self.assertEqual((0, "", []), (answer["pieces"], answer["have"], answer["availability"]))
        self.assertEqual([], peers(self.leech.session)["peers"])

    def test_pieces(self):
        """What is here grows to everything; each piece is in one state; the seed has them all."""
        session = self.leech.session
        everything = (1 << 40) - 1
        self.world.run_until(lambda: PieceMap.of(session).have.bit_count() > 3, timeout=60)
        found = PieceMap.of(session)
        self.assertEqual(40, found.count)
        self.assertEqual((everything,), found.planes)
        self.assertEqual(0, found.have & (found.in_flight | found.writing))
        self.assertEqual([found.have, found.in_flight, found.writing, everything], found.layers())
        self.finish()
        answer = pieces(session)
        self.assertEqual(b"\xff" * 5, b64decode(answer["have"]))
        self.assertEqual(b"\x00" * 5, b64decode(answer["in_flight"]))
        self.assertEqual([b"\xff" * 5], [b64decode(plane) for plane in answer["availability"]])

    def test_peers(self):
        """Each end names the other, who called, and what moved: no byte of a piece is left out."""
        self.finish()
        assert self.seed.service is not None
        (there,) = peers(self.leech.session)["peers"]
        (here,) = peers(self.seed.session)["peers"]
        self.assertEqual(self.seed.service.node_id.hex(), there["node"])
        self.assertIn("10.0.1.1", there["address"])
        self.assertEqual((40 * PIECE, 0), (there["received_bytes"], there["sent_bytes"]))
        self.assertEqual((0, 40 * PIECE), (here["received_bytes"], here["sent_bytes"]))
        self.assertNotEqual(here["outgoing"], there["outgoing"])
