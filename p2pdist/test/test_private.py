"""Private networks: nobody without the secret gets in, or an answer, or a byte that says anything.

Nodes and whole services in the simulated network. The envelope alone is in ``test_envelope``,
secrets and their files in ``test_secret``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import evolve
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from zope.interface import implementer

from p2pdist import limits, logs
from p2pdist.addresses import Address, HostPort
from p2pdist.descriptor import Descriptor
from p2pdist.errors import ConfigurationError, DescriptorError
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys, topic_of
from p2pdist.neighbours import decode as decode_neighbours
from p2pdist.overlay.bootstrap import ANSWERED, Bootstrap, EntryState
from p2pdist.overlay.envelope import HEADER_BYTES, Envelope, read_header
from p2pdist.overlay.membership import Membership
from p2pdist.overlay.messages import Announce, Ping, Pong, Status
from p2pdist.overlay.wire import encode
from p2pdist.secret import Secret
from p2pdist.service import P2PDistService
from p2pdist.stages import Stage
from p2pdist.test.needles import forms, found, keys_of
from p2pdist.test.network import Host
from p2pdist.test.overlayworld import KEY, OverlayNode, PeersSeen, lan
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import STATE, Content, content, one_file
from p2pdist.test.stranger import Stranger
from p2pdist.test.strategies import hostile_msgpack
from p2pdist.test.support import TestCase, given

OLD, NEW = (Secret.new(random.Random(number).randbytes) for number in (1, 2))
OLD_KEYS, NEW_KEYS = (NetworkKeys.from_secret(secret.raw) for secret in (OLD, NEW))


def sent_by(host: Host) -> list[Any]:
    """Return the records of the datagrams a host sent."""
    own = set(host.addresses) | {host.name}
    return [r for r in host.world.trace if r.kind == "udp" and r.source[0] in own]


class SilenceTests(TestCase):
    """A private node and who does not have its key."""

    def setUp(self) -> None:
        """A private node, an insider, and an outsider who records what passes."""
        self.world, (a, b, c) = lan(count=3)
        self.node = OverlayNode.on(a, keys=OLD_KEYS)
        self.insider = Stranger(b, OLD_KEYS)
        self.outsider = Stranger(c)

    def assert_silent(self, datagram: bytes, forged_from: Address | None = None) -> None:
        """Fail if the node answers the outsider's datagram, or changes."""
        before = len(sent_by(self.node.host))
        if forged_from is None:
            self.outsider.send_raw(self.node.address, datagram)
        else:
            self.world.send_datagram(self.outsider.host, forged_from, self.node.address, datagram)
        self.world.run(1)
        self.assertEqual(before, len(sent_by(self.node.host)))
        self.assertEqual(0, self.node.node.dropped["bug"])

    def test_other_networks(self) -> None:
        """Datagrams of the public network, or of another private one, get no notice either."""
        for keys in (PUBLIC_NETWORK, NEW_KEYS):
            sealer = Envelope(keys, self.outsider.host.entropy)
            self.assert_silent(sealer.seal(encode(Ping(node_id=self.outsider.node_id))))
        self.assertEqual(2, self.node.node.dropped["network-unknown"])

    def test_node_of_two_networks(self) -> None:
        """A node that is in the public network too is no oracle for who serves which tag."""
        self.node.node.add_network(PUBLIC_NETWORK)
        sealer = Envelope(NEW_KEYS, self.outsider.host.entropy)
        self.assert_silent(sealer.seal(encode(Ping(node_id=self.outsider.node_id))))
        self.assertIsInstance(
            self.outsider.ask(self.node.address, Ping(node_id=self.outsider.node_id)), Pong
        )

    @given(st.binary(max_size=limits.DATAGRAM_BYTES + 8))
    def test_junk(self, junk: bytes) -> None:
        """Any bytes are met with silence."""
        self.assert_silent(junk)

    @given(st.binary(min_size=24, max_size=24), hostile_msgpack() | st.binary(min_size=17))
    def test_the_right_tag(self, head: bytes, payload: bytes) -> None:
        """A header with the network's tag and anything after it is met with silence."""
        header = b"\xd1\x01" + OLD_KEYS.tag + head
        self.assert_silent(header + payload[: limits.DATAGRAM_BYTES - HEADER_BYTES])
        self.assert_silent(b"\xd1\x00" + OLD_KEYS.tag + head)

    def test_flipped_bits(self) -> None:
        """A ping of an insider with any one bit flipped is met with silence."""
        datagram = self.insider.envelope.seal(encode(Ping(node_id=self.insider.node_id)))
        (socket,) = self.node.node._sockets
        for bit in range(8 * len(datagram)):
            flipped = bytearray(datagram)
            flipped[bit >> 3] ^= 1 << (bit & 7)
            socket.datagramReceived(bytes(flipped), self.outsider.address)
        self.world.run(1)
        self.assertEqual([], sent_by(self.node.host))
        self.insider.send_raw(self.node.address, datagram)
        self.world.run(1)
        self.assertEqual(1, len(self.insider.heard(Pong)), "unchanged it is answered")

    def test_replay(self) -> None:
        """A recorded datagram gets no answer again: not at its source's address, nor elsewhere."""
        datagram = self.insider.envelope.seal(encode(Ping(node_id=self.insider.node_id)))
        self.insider.send_raw(self.node.address, datagram)
        self.world.run(1)
        self.assertEqual(1, len(self.insider.heard(Pong)))
        self.assert_silent(datagram)
        self.assert_silent(datagram, forged_from=self.insider.address)
        for port in range(1, 8):
            self.assert_silent(datagram, forged_from=Address("10.0.0.3", port))
        self.assertEqual(9, self.node.network.dropped["replayed"])

    def test_replay_after_a_restart(self) -> None:
        """A receiver that lost its memory answers old datagrams with less, and stores nothing."""
        token = self.insider.befriend(self.node.address)
        messages = (
            Ping(node_id=self.insider.node_id, token=token),
            Announce(
                node_id=self.insider.node_id,
                token=token,
                topic=topic_of(KEY),
                status=Status.SEED,
                sequence=1,
            ),
        )
        recorded = [self.insider.envelope.seal(encode(message)) for message in messages]
        for datagram in recorded:
            self.insider.send_raw(self.node.address, datagram)
        self.world.run(1)
        self.assertEqual(1, self.node.network.peers.total)
        self.node.host.restart()
        self.node = OverlayNode.on(self.node.host, keys=OLD_KEYS)
        self.outsider.bytes_sent = self.outsider.bytes_received = 0
        for datagram in recorded:
            self.outsider.send_raw(self.node.address, datagram)
            self.world.send_datagram(
                self.outsider.host, self.insider.address, self.node.address, datagram
            )
        # What comes back is sealed; that somebody is here is all it says.
        self.outsider.envelope = Envelope(OLD_KEYS, self.outsider.host.entropy)  # to count only
        self.world.run(1)
        self.assertEqual(0, self.node.network.peers.total)
        self.assertEqual(0, len(self.node.network.neighbours))
        self.assertLessEqual(self.outsider.bytes_received, self.outsider.bytes_sent)

    def test_restarted_sender(self) -> None:
        """A sender that starts anew counts from zero under a new boot id, and is heard at once."""
        again = Stranger(self.world.host("10.0.0.4"), OLD_KEYS)
        for _ in range(300):
            again.send(self.node.address, Ping(node_id=again.node_id))
        self.world.run(1)
        again.host.restart()
        again = Stranger(again.host, OLD_KEYS)
        self.assertIsInstance(again.ask(self.node.address, Ping(node_id=again.node_id)), Pong)


class TwoNetworksTests(TestCase):
    """Several networks behind one socket."""

    def both(self, host: Host, *nodes: str) -> tuple[OverlayNode, Membership, PeersSeen]:
        """Start a node in the public network and in a private one; return the private half too."""
        node = OverlayNode.on(host, *nodes)
        network = node.node.add_network(OLD_KEYS)
        bootstrap = Bootstrap(network, host.reactor, host.rng, host.resolver.resolve)
        bootstrap.add(tuple(HostPort(name, limits.DEFAULT_PORT) for name in nodes))
        bootstrap.start()
        seen = PeersSeen()
        return node, Membership(network, KEY, seen), seen

    def assert_among(self, allowed: set[str], met: set[str]) -> None:
        """Fail unless somebody was met, and nobody but those allowed."""
        self.assertTrue(met)
        self.assertLessEqual(met, allowed)

    def test_they_never_cross(self) -> None:
        """One content in both networks, on the same nodes: no member meets the other's."""
        world, hosts = lan(count=9)
        nodes = [self.both(host, "10.0.0.1") for host in hosts]
        seen_public = [node.join(Status.SEED)[1] for node, _, _ in nodes[1:5]]
        for _, member, _ in nodes[5:]:
            member.start()
            member.set_status(Status.SEED)
        world.run(60)
        public = {f"10.0.0.{number}" for number in range(2, 6)}
        private = {f"10.0.0.{number}" for number in range(6, 10)}
        for seen, (node, _, _) in zip(seen_public, nodes[1:5], strict=True):
            own = node.host.addresses[0]
            self.assert_among(public - {own}, {host for _, host, _ in seen.events})
        for node, _, seen in nodes[5:]:
            own = node.host.addresses[0]
            self.assert_among(private - {own}, {host for _, host, _ in seen.events})
        topic = topic_of(KEY)
        for node, member, _ in nodes:
            told = {
                id(network): {peer.address.host for peer in network.peers.entries(topic)}
                for network in (node.network, member.network)
            }
            self.assertLessEqual(told[id(node.network)], public)
            self.assertLessEqual(told[id(member.network)], private)

    def test_notice_concerns_one_network(self) -> None:
        """An entry that serves the public network only is wrong for the other, and right for it."""
        world, (a, b) = lan(count=2)
        OverlayNode.on(b)
        node = OverlayNode.on(a, "10.0.0.2")
        network = node.node.add_network(OLD_KEYS)
        private = Bootstrap(network, a.reactor, a.rng, a.resolver.resolve)
        network.wrong_network.append(private.wrong_network)
        private.add((HostPort("10.0.0.2", limits.DEFAULT_PORT),))
        private.start()
        world.run(3)
        self.assertEqual(EntryState.WRONG_NETWORK, private.reports()[0].state)
        self.assertEqual(EntryState.ANSWERED, node.bootstrap.reports()[0].state)

    def test_one_tag_for_two_secrets(self) -> None:
        """Two secrets with one tag, as chance may have it, are refused and not taken for one."""
        _, (a,) = lan(count=1)
        node = OverlayNode.on(a, keys=OLD_KEYS).node
        self.assertIs(node.networks[0], node.add_network(NetworkKeys.from_secret(OLD.raw)))
        clash = evolve(NEW_KEYS, tag=OLD_KEYS.tag)
        error = self.assertRaises(ConfigurationError, node.add_network, clash)
        self.assertIn(OLD_KEYS.tag.hex(), str(error))


class WireTests(TestCase):
    """What passes by on the wire."""

    def test_nothing_shows(self) -> None:
        """A private swarm finds itself; no datagram shows secret, keys, hash key or topic."""
        world, hosts = lan(count=8)
        passed: list[bytes] = []
        nodes: list[OverlayNode] = []
        for host in hosts:
            node = OverlayNode.on(host, *(["10.0.0.1"] if nodes else []), keys=OLD_KEYS)
            node.network.transmit = self.tapped(node.network.transmit, passed)
            nodes.append(node)
        members = [node.join(Status.SEED) for node in nodes[1:]]
        world.run(60)
        for _, seen in members:
            self.assertTrue(seen.events)
        self.assertGreater(len(passed), 200)
        boots = [node.network.envelope.boot_id for node in nodes]
        hidden = [*keys_of(OLD, *boots), KEY, topic_of(KEY), *(n.network.node_id for n in nodes)]
        self.assertEqual([], found(passed, hidden))
        self.assertEqual({OLD_KEYS.tag}, {read_header(datagram).tag for datagram in passed})

    def test_no_datagram_twice(self) -> None:
        """With loss and duplicates every datagram is a new one: no nonce comes twice."""
        world, hosts = lan(seed=3, count=5)
        world.link(loss=0.2, duplicate=0.3, delay=(0.001, 0.05))
        passed: list[bytes] = []
        for host in hosts:
            node = OverlayNode.on(host, "10.0.0.1", keys=OLD_KEYS)
            node.network.transmit = self.tapped(node.network.transmit, passed)
            node.join(Status.SEED)
        world.run(60)
        nonces = [datagram[:HEADER_BYTES] for datagram in passed]
        self.assertEqual(len(nonces), len(set(nonces)))

    @staticmethod
    def tapped(
        transmit: Callable[[bytes, Address], None], passed: list[bytes]
    ) -> Callable[[bytes, Address], None]:
        """Return ``transmit`` with somebody listening."""

        def tap(datagram: bytes, address: Address) -> None:
            passed.append(datagram)
            transmit(datagram, address)

        return tap

    def test_the_needles_are_sharp(self) -> None:
        """What looks for a secret finds each form of it, also in the middle of something."""
        for form in forms(OLD.raw):
            self.assertNotEqual([], found([b"before " + form + b" after"], [OLD.raw]))
        self.assertNotEqual([], found([OLD.text.encode()], keys_of(OLD)))
        self.assertEqual([], found([NEW.raw, NEW.text.encode()], keys_of(OLD)))


class NoTCP:
    """Stands for connections that are never made."""

    def connectTCP(self, *_arguments: Any, **_settings: Any) -> NoTCP:
        """Try for ever."""
        return self

    def stopConnecting(self) -> None:
        """Give up."""


class ServiceCase(TestCase):
    """Whole services."""

    def setUp(self) -> None:
        """Make a network without hosts."""
        self.world, _ = lan()
        self.made = one_file()
        self.stations: list[Station] = []
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop what still runs; nothing may be left."""
        for station in self.stations:
            if station.service is not None:
                station.stop()

    def station(self, number: int, made: Content | None = None) -> Station:
        """Set up a machine, with the content if it is given."""
        station = Station.at(self.world, f"10.0.0.{number}")
        self.stations.append(station)
        if made is not None:
            station.store(made)
        return station

    def run_overlay(
        self, station: Station, descriptor: Descriptor, **settings: Any
    ) -> P2PDistService:
        """Start a service whose contents find their peers, and stop short of TCP."""
        settings.setdefault("secrets", descriptor.secrets)
        service = station.run(**settings)
        service.contents.reactor = NoTCP()  # type: ignore[assignment]
        service.add(descriptor)
        return service

    def joined(self, station: Station) -> set[str]:
        """Return the hosts of the peers the station's session has joined."""
        return {peer.address.host for peer in station.session.membership.joined.values()}


class ServiceTests(ServiceCase):
    """Which networks a service is in."""

    def test_bare_nodes(self) -> None:
        """A bare node is in the public network, or in those of its secrets alone."""
        public, private = self.station(1), self.station(2)
        self.assertEqual([PUBLIC_NETWORK], [n.keys for n in public.run().overlay.node.networks])
        service = private.run(secrets=(OLD, NEW))
        self.assertEqual([OLD_KEYS, NEW_KEYS], [n.keys for n in service.overlay.node.networks])

    def test_bare_node_shows_the_way(self) -> None:
        """Private swarms find themselves through a node that has the secret and no content."""
        entry, seed, leech = self.station(1), self.station(2, self.made), self.station(3)
        entry.run(secrets=(OLD,))
        descriptor = evolve(pointing(self.made, entry), secrets=(OLD,))
        for station in (seed, leech):
            self.run_overlay(station, descriptor)
        self.world.run_until(lambda: self.joined(leech) == {"10.0.0.2"}, timeout=10)
        self.world.run_until(lambda: self.joined(seed) == {"10.0.0.3"}, timeout=10)
        (report,) = leech.session.status().nodes
        self.assertIn(report.state, ANSWERED)

    def test_unread_secret(self) -> None:
        """A content whose secret was not read is refused, before anything was sent or opened."""
        station = self.station(1, self.made)
        service = station.run()
        descriptor = evolve(pointing(self.made, "10.0.0.2"), secret_file="s")
        self.assertRaises(DescriptorError, service.add, descriptor)
        self.assertEqual({}, service.contents.sessions)
        self.assertEqual([PUBLIC_NETWORK], [n.keys for n in service.overlay.node.networks])

    def test_plain_callers_find_no_private_content(self) -> None:
        """The listener of plain TCP knows public topics only."""
        other = content({"other.bin": 100_000})
        station = self.station(1, self.made)
        service = self.run_overlay(station, evolve(self.made.descriptor(), secrets=(OLD,)))
        service.add(other.descriptor())
        find = service.contents.listener._find_hash_key
        self.assertIsNone(find(topic_of(self.made.hash_key)))
        self.assertIsNotNone(find(topic_of(other.hash_key)))

    def test_one_content_in_two_networks(self) -> None:
        """A content is public or private in one process, and private with the same secrets."""
        service = self.run_overlay(self.station(1), evolve(self.made.descriptor(), secrets=(OLD,)))
        for secrets in ((), (NEW,), (OLD, NEW)):
            again = evolve(self.made.descriptor(), secrets=secrets)
            error = self.assertRaises(ConfigurationError, service.add, again)
            self.assertIn("same content in different networks", str(error))
        again = evolve(self.made.descriptor(), secrets=(OLD,), nodes=(HostPort("10.0.0.9", 1),))
        self.assertIs(service.contents.sessions[self.made.hash_key], service.add(again))

    def test_public_and_private_in_one_process(self) -> None:
        """Every process has a public and a private content; each finds its own peers only."""
        shared = content({"shared.bin": 100_000})
        entry = self.station(1)
        public_only, private_only = self.station(2, shared), self.station(3, self.made)
        both = self.station(4)
        entry.run(secrets=(OLD,)).overlay.join(PUBLIC_NETWORK)
        self.run_overlay(public_only, pointing(shared, entry))
        private = evolve(pointing(self.made, entry), secrets=(OLD,))
        self.run_overlay(private_only, private)
        service = self.run_overlay(both, private)
        service.add(pointing(shared, entry))
        sessions = service.contents.sessions
        self.world.run(30)
        found = {
            name: {p.address.host for p in sessions[made.hash_key].membership.joined.values()}
            for name, made in (("public", shared), ("private", self.made))
        }
        self.assertEqual({"public": {"10.0.0.2"}, "private": {"10.0.0.3"}}, found)
        table = {n.keys.tag: n for n in both.service.overlay.node.networks}  # type: ignore[union-attr]
        for tag, stranger in ((PUBLIC_NETWORK.tag, "10.0.0.3"), (OLD_KEYS.tag, "10.0.0.2")):
            known = {entry.address.host for entry in table[tag].neighbours}
            self.assertNotIn(stranger, known)
            self.assertIn("10.0.0.1", known)

    def test_content_that_comes_later_brings_its_network(self) -> None:
        """A running node goes into a network when a content needs it, and is found there."""
        first, second = self.station(1, self.made), self.station(2)
        private = evolve(self.made.descriptor(), secrets=(OLD,))
        self.run_overlay(first, evolve(private, nodes=(HostPort(*second.address),)))
        self.assertEqual(1, len(first.service.overlay.presences))  # type: ignore[union-attr]
        self.run_overlay(second, private)
        self.world.run_until(lambda: self.joined(first) == {"10.0.0.2"}, timeout=90)


class RotationTests(ServiceCase):
    """A secret is replaced: some machines have the old one, some both, some the new one."""

    def test_both_meet_either(self) -> None:
        """Who has both secrets joins everybody; who has one, those who have it."""
        stations = [self.station(number, self.made) for number in (1, 2, 3, 4)]
        entry = pointing(self.made, stations[1], stations[2])
        for station, secrets in zip(
            stations, ((OLD,), (OLD, NEW), (NEW, OLD), (NEW,)), strict=True
        ):
            self.run_overlay(station, evolve(entry, secrets=secrets))
        self.world.run(90)
        joined = [{host[-1] for host in self.joined(station)} for station in stations]
        for met, allowed in zip(joined, ("23", "134", "124", "23"), strict=True):
            self.assertTrue(met)
            self.assertLessEqual(met, set(allowed))
        self.assertTrue("4" in joined[1] | joined[2] and "1" in joined[1] | joined[2])
        old, new = stations[1].session.membership._each
        self.assertTrue(old.joined.keys() & new.joined.keys(), "somebody is in both networks,")
        status = stations[1].session.status()
        self.assertEqual(len(joined[1]), status.joined, "and counts once")
        states = {str(report.entry): report.state for report in stations[3].session.status().nodes}
        self.assertLessEqual(set(states.values()), ANSWERED)

    def test_leaving_one_network_is_not_leaving(self) -> None:
        """A peer that gives up the old secret stays joined by the new one."""
        one, two = self.station(1, self.made), self.station(2, self.made)
        for station in (one, two):
            self.run_overlay(station, evolve(pointing(self.made, one, two), secrets=(OLD, NEW)))
        self.world.run_until(lambda: self.joined(one) and self.joined(two), timeout=30)
        self.world.run(30)
        old, new = two.session.membership._each
        self.assertTrue(old.joined and new.joined)
        left: list[object] = []
        one.session.transfer.peer_left = left.append  # type: ignore[method-assign, assignment]
        old.stop()
        self.world.run(2)
        self.assertEqual({"10.0.0.2"}, self.joined(one))
        self.assertEqual([], left)
        new.stop()
        self.world.run(2)
        self.assertEqual(set(), self.joined(one))
        self.assertEqual(1, len(left))


class MemoryTests(ServiceCase):
    """What is kept between runs."""

    def test_each_network_has_its_own(self) -> None:
        """Saved neighbours and peers go back into the network they came from, and no other."""
        entry, peer, station = self.station(1), self.station(2, self.made), self.station(3)
        entry.run()
        private = evolve(pointing(self.made, peer), secrets=(OLD,))
        self.run_overlay(peer, private)
        shared = content({"shared.bin": 100_000})
        service = self.run_overlay(station, private)
        service.add(pointing(shared, entry))
        self.world.run(30)
        station.stop()
        saved = decode_neighbours(station.disk.get(f"{STATE}/neighbours"))
        hosts = {tag: {node.host for node in part.neighbours} for tag, part in saved.items()}
        self.assertEqual({OLD_KEYS.tag: {"10.0.0.2"}, PUBLIC_NETWORK.tag: {"10.0.0.1"}}, hosts)
        self.assertEqual({self.made.hash_key: (peer.address,)}, saved[OLD_KEYS.tag].peers)
        self.assertNotIn(self.made.hash_key, saved[PUBLIC_NETWORK.tag].peers)

    def test_a_run_without_a_network_forgets_nothing(self) -> None:
        """What is known of a network outlives a run that is not in it."""
        entry, station = self.station(1), self.station(2)
        entry.run(secrets=(OLD,))
        station.run(nodes=(entry,), secrets=(OLD,))
        self.world.run(5)
        station.stop()
        other = self.station(3)
        other.run()
        station.run(nodes=(other,))
        self.world.run(5)
        station.stop()
        saved = decode_neighbours(station.disk.get(f"{STATE}/neighbours"))
        self.assertEqual({OLD_KEYS.tag, PUBLIC_NETWORK.tag}, set(saved))
        count = len(sent_by(station.host))
        station.run(secrets=(OLD,))
        self.world.run_until(
            lambda: len(station.service.overlay.network.neighbours),  # type: ignore[union-attr]
            timeout=5,
        )
        self.assertEqual(
            {"10.0.0.1"}, {record.target[0] for record in sent_by(station.host)[count:]}
        )


class LANTests(ServiceCase):
    """The local network."""

    def test_hails_reach_their_own_network(self) -> None:
        """Without any address, private nodes find private ones and public nodes public ones."""
        secrets: tuple[tuple[Secret, ...], ...] = ((), (), (OLD,), (OLD,), (NEW,))
        stations = [self.station(number) for number in range(1, 6)]
        for station, own in zip(stations, secrets, strict=True):
            station.run(listen=(), lan=True, secrets=own)
        self.world.run(30)
        known = []
        for station in stations:
            assert station.service is not None
            neighbours = station.service.overlay.network.neighbours
            known.append({entry.address.host[-1] for entry in neighbours})
        self.assertEqual([{"2"}, {"1"}, {"4"}, {"3"}, set()], known)

    def test_content_is_offered_in_its_network_only(self) -> None:
        """A hail in one network is no candidate for a session that is in another."""
        shared = content({"shared.bin": 100_000})
        public, private = self.station(1, shared), self.station(2)
        public.run(shared.descriptor(), listen=(), lan=True)
        self.run_overlay(private, evolve(shared.descriptor(), secrets=(OLD,)), listen=(), lan=True)
        self.world.run(30)
        self.assertEqual(set(), self.joined(private))
        self.assertEqual(set(), self.joined(public))


class LogTests(ServiceCase):
    """What is written where people look."""

    def setUp(self) -> None:
        """Listen to every level."""
        super().setUp()
        self.heard: list[LogEvent] = []

        @implementer(ILogObserver)
        def hear(event: LogEvent) -> None:
            self.heard.append(event)

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)
        self.addCleanup(logs.level.clearLogLevels)
        logs.verbose()

    def test_no_secret_anywhere(self) -> None:
        """Logs, statuses, saved files and ``repr`` show no secret and no key."""
        entry, seed, leech = self.station(1), self.station(2, self.made), self.station(3)
        entry.run(secrets=(OLD, NEW))
        descriptor = evolve(pointing(self.made, entry, "10.0.0.9"), secrets=(OLD, NEW))
        for station in (seed, leech):
            self.run_overlay(station, descriptor)
        junk = Stranger(self.world.host("10.0.0.8"))
        junk.send(leech.address, Ping(node_id=junk.node_id))
        self.world.run(60)
        self.assertIs(Stage.LEECHING, leech.session.stage)
        told = [eventAsText(event) for event in self.heard]
        plain = (str, bytes, int, float, tuple, list, dict)
        told += [repr(v) for e in self.heard for v in e.values() if isinstance(v, plain)]
        self.assertIn(f"private network {OLD_KEYS.tag.hex()}", " ".join(told))
        boots = []
        for station in self.stations:
            assert station.service is not None
            told.append(repr(station.service.config))
            for network in station.service.overlay.node.networks:
                boots.append(network.envelope.boot_id)
                told += [repr(network.keys), repr(network.envelope), repr(network.guard)]
            for session in station.service.contents.sessions.values():
                told += [repr(session.status()), repr(session.descriptor)]
                told.append(session.descriptor.to_uri())
            station.stop()
            told.append(station.disk.get(f"{STATE}/neighbours").decode())
        hidden = [*keys_of(OLD, *boots), *keys_of(NEW, *boots)]
        self.assertEqual([], found([text.encode() for text in told], hidden))
        self.assertNotEqual([], found([descriptor.to_toml().encode()], hidden))
