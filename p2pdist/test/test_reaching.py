"""Tests of reaching the nodes of descriptors, in the simulated network."""

from __future__ import annotations

from attrs import evolve

from p2pdist.addresses import Address, HostPort
from p2pdist.config import Config
from p2pdist.descriptor import Descriptor
from p2pdist.faces.checks import BAD, HINT, OK, Finding
from p2pdist.faces.reaching import NO_NODE, rank, reach
from p2pdist.secret import Secret
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import one_file
from p2pdist.test.support import TestCase


class ReachTests(TestCase):
    """What is said of each entry."""

    def setUp(self):
        """A node, and a machine that asks."""
        self.world = World(1)
        self.node = Station.at(self.world, "10.0.0.1")
        self.asker = Station.at(self.world, "10.0.0.9")
        self.made = one_file()

    def ask(self, *descriptors: Descriptor) -> list[Finding]:
        """Return what is found; nothing may be left open."""
        config = Config(port=0, listen=("0.0.0.0",), lan=False)
        reached = self.world.wait_for(reach(self.asker.machine, config, descriptors))
        self.world.run(20)
        self.assertEqual([], self.asker.host.leaks())
        return rank(reached)

    def test_all_is_well(self):
        """A node that answers on UDP and TCP is fine."""
        self.node.run()
        (found,) = self.ask(pointing(self.made, self.node))
        self.assertEqual((OK, "node 10.0.0.1:7667"), (found.verdict, found.subject))

    def test_nobody(self):
        """A machine without a node answers nothing: exit code 3."""
        (found,) = self.ask(pointing(self.made, self.node))
        self.assertEqual((BAD, NO_NODE), (found.verdict, found.exit_code))
        self.assertIn("no answer over UDP; TCP: ", found.text)

    def test_tcp_blocked(self):
        """The commonest firewall fault is named."""
        self.node.run()
        for listening in list(self.node.host.tcp):
            listening.close()
        (found,) = self.ask(pointing(self.made, self.node))
        self.assertEqual((BAD, 1), (found.verdict, found.exit_code))
        self.assertIn("answers over UDP, but TCP is blocked", found.text)

    def test_udp_blocked(self):
        """The other way round is named too."""
        self.node.run()
        for listening in list(self.node.host.udp):
            listening.close()
        (found,) = self.ask(pointing(self.made, self.node))
        self.assertEqual((BAD, NO_NODE), (found.verdict, found.exit_code))
        self.assertIn("no answer over UDP, but TCP works", found.text)

    def test_one_answers(self):
        """Where one node answers, silent ones are a hint only; names are resolved."""
        self.node.run()
        self.world.dns["here.example"] = ["10.0.0.1"]
        descriptor = pointing(self.made, "here.example", "10.0.0.77", "none.example")
        found = {one.subject: one for one in self.ask(descriptor, descriptor)}
        verdicts = {subject.split()[1]: one.verdict for subject, one in found.items()}
        self.assertEqual(
            {"here.example:7667": OK, "10.0.0.77:7667": HINT, "none.example:7667": HINT}, verdicts
        )

    def test_other_network(self):
        """A node of another network says that it is one."""
        self.node.run(secrets=(Secret(b"\x01" * 32),))
        (found,) = self.ask(pointing(self.made, self.node))
        self.assertEqual(BAD, found.verdict)

    def test_private(self):
        """The nodes of a private descriptor are asked with its secret."""
        secret = Secret(b"\x01" * 32)
        self.node.run(secrets=(secret,))
        (found,) = self.ask(evolve(pointing(self.made, self.node), secrets=(secret,)))
        self.assertEqual(OK, found.verdict, found)

    def test_addresses_are_told(self):
        """The addresses that answered are known, for a look at the way to them."""
        self.node.run()
        config = Config(port=0, listen=("0.0.0.0",), lan=False)
        descriptor = evolve(pointing(self.made), nodes=(HostPort("10.0.0.1", 7667),))
        (one,) = self.world.wait_for(reach(self.asker.machine, config, [descriptor]))
        self.assertEqual((Address("10.0.0.1", 7667),), one.addresses)
