"""Discovery in the simulated network: the production overlay, several nodes, every datagram real."""

from __future__ import annotations

from p2pdist.overlay.wire import Status
from p2pdist.test.overlayworld import OverlayNode, lan
from p2pdist.test.support import TestCase


class ChainTests(TestCase):
    """The scenario the whole idea began with."""

    def test_finder_answers_the_initiator_directly(self):
        """A knows B, B knows C, C knows of D and the dead E: A pings both, joins D, drops E."""
        world, (a, b, c, d, e) = lan(count=5)
        node_c = OverlayNode.on(c)
        node_b = OverlayNode.on(b, node_c)
        node_d, node_e = OverlayNode.on(d), OverlayNode.on(e)
        _, seen_d = node_d.join(Status.SEED)
        membership_e, _ = node_e.join(Status.SEED)
        topic = membership_e.topic
        for node in (node_d, node_e):
            table = node_c.network.peers
            table.put(topic, node.node.key.node_id, node.address, Status.SEED, 0, world.now)
        e.crash()
        world.run(5)

        node_a = OverlayNode.on(a, node_b)
        membership, seen = node_a.join(Status.IDLE)
        start = len(world.trace)
        world.run_until(lambda: seen.events, timeout=5)
        world.run(4)

        hops = [(r.source[0][-1], r.target[0][-1]) for r in world.trace[start:]]
        self.assertLess(hops.index(("1", "2")), hops.index(("2", "3")), "A asks B, B asks C")
        self.assertLess(hops.index(("2", "3")), hops.index(("3", "1")), "C answers A directly")
        self.assertIn(("1", "5"), hops, "A pings E, which is dead")
        self.assertEqual([("joined", "10.0.0.4", True)], seen.events, "A joins D and drops E")
        self.assertEqual(["10.0.0.4"], [p.address.host for p in membership.joined.values()])
        self.assertEqual([("joined", "10.0.0.1", False)], seen_d.events)
        d_knows = node_d.network.peers.entries(topic)
        self.assertEqual([(node_a.address, Status.IDLE)], [(p.address, p.status) for p in d_knows])
