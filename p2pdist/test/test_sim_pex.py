"""Peers that tell of peers, in the simulated network, with the production service."""

from __future__ import annotations

import itertools

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.swarm.messages import Message, PeerFlag, PeerNote, Peers
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import PIECE, Content, content
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import Liar, LiarNode

SMALL = 600
"""Bytes of the longest datagram that gets through: pings and joins do, get_peers does not."""


class MeshTests(TestCase):
    """Who knows one peer soon knows enough."""

    def stations(self, made: Content, count: int) -> list[Station]:
        """Start services that know nobody, where large datagrams vanish: no lookup finds a peer."""
        self.world = World(4)
        self.world.link(delay=(0.001, 0.003), bandwidth=20_000_000, mtu=SMALL)
        stations = [Station.at(self.world, f"10.0.0.{number + 1}") for number in range(count)]
        for station in stations:
            station.run(pointing(made))
        self.world.run(1)
        return stations

    @staticmethod
    def peers(stations: list[Station]) -> list[int]:
        """Return how many connections each has."""
        return [station.session.transfer.progress().peers for station in stations]

    def test_one_peer_is_enough(self) -> None:
        """Twelve nodes that wait for a seed and found one peer each all know each other soon.

        A seed that then finds one of them too serves all.
        """
        made = content({"model.bin": 24 * PIECE})
        *leeches, late = self.stations(made, 13)
        hub = leeches[0]
        for station in leeches[1:]:
            station.session.membership.candidate(hub.address)
        self.world.run(limits.PEX_SOON_S)
        found = [len(station.session.membership.joined) for station in leeches]
        self.assertEqual([11, *[1] * 11], found)
        self.world.run(15)
        self.assertEqual([11] * 12, self.peers(leeches))
        late.stop()
        late.host.restart()
        late.store(made)
        late.run(pointing(made))
        self.world.run(1)
        late.session.membership.candidate(leeches[5].address)
        self.world.run_until(lambda: all(leech.holds(made) for leech in leeches), 60)
        for station in (*leeches, late):
            station.stop()

    def test_one_rollout_meets_at_once(self) -> None:
        """Who comes in the same moment knows the others before the first tick is over."""
        stations = self.stations(content({"model.bin": 24 * PIECE}), 9)
        for station in stations[1:]:
            station.session.membership.candidate(stations[0].address)
        self.world.run(2 * limits.PEX_SOON_S + 0.2)
        self.assertEqual([8] * 9, self.peers(stations))
        for station in stations:
            station.stop()

    def test_chain(self) -> None:
        """Nodes that found each other in a chain end well connected, and survive its middle."""
        made = content({"model.bin": 24 * PIECE})
        stations = self.stations(made, 12)
        for one, other in itertools.pairwise(stations):
            one.session.membership.candidate(other.address)
        self.world.run(40)
        self.assertEqual([11] * 12, self.peers(stations))
        for station in stations[4:8]:
            station.host.kill()
        self.world.run(2)
        self.assertEqual([7] * 8, self.peers(stations[:4] + stations[8:]))


class LiarTests(TestCase):
    """A peer that tells of addresses that are not there."""

    def test_pings_are_bounded(self) -> None:
        """However much a liar tells, few strangers are pinged, none is called over TCP."""
        world = World(5)
        made = content({"model.bin": 4 * PIECE})
        victim = Station.at(world, "10.0.0.1")
        victim.run(pointing(made))
        for number in range(1, 200):
            world.host(f"10.9.0.{number}")
        told: list[int] = []

        def lie(liar: Liar, message: Message) -> None:
            if isinstance(message, Peers):
                for frame in range(int(limits.RATE_PEX[1])):
                    hosts = range(25 * frame, 25 * frame + limits.PEX_PEERS)
                    notes = (
                        PeerNote(Address(f"10.9.0.{number % 199 + 1}", 7667), PeerFlag.REACHED)
                        for number in hosts
                    )
                    liar.say(Peers(True, added4=tuple(notes)))
                    told.append(frame)

        liar = LiarNode(world, 66, made, lie)
        liar.bits = b""
        other = LiarNode(world, 67, made, lambda _liar, _message: None)
        other.bits = b""
        world.run(1)
        transfer = victim.session.transfer
        for each in (liar, other):
            transfer.peer_joined(each.address, each.key.node_id, dial_now=True)
        world.run(100)
        self.assertTrue(told, "the liar had its say")
        sent = [
            record
            for record in world.trace
            if record.source[0] == "10.0.0.1" and record.target[0].startswith("10.9.0.")
        ]
        self.assertEqual({"udp"}, {record.kind for record in sent})
        self.assertLessEqual(len({record.target for record in sent}), limits.PEX_FREE)
        self.assertLessEqual(len(sent), limits.PEX_FREE * limits.FIRST_CONTACT_TRIES)
        self.assertEqual(2, transfer.progress().peers)
