"""Private swarms over TCP, in the simulated network: who has the secret transfers, others get none.

A stranger has no secret; an insider has it, and lacks the content or the honesty. What each hears,
how it ends and when is compared over all of them: it must not tell one reason from another.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from attrs import evolve
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import HashKey, NodeID
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys
from p2pdist.secret import Secret
from p2pdist.stages import Stage
from p2pdist.swarm.handshake import Dialler as PublicDialler
from p2pdist.swarm.knock import KNOCK_BYTES, knock
from p2pdist.swarm.messages import Binding, Bye, ByeReason
from p2pdist.swarm.peerwire import PREFACE, encode
from p2pdist.swarm.tls import Channel, Credentials
from p2pdist.test.needles import found, keys_of
from p2pdist.test.network import Host, World
from p2pdist.test.overlayworld import lan
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.simpipe import Pipe
from p2pdist.test.storehouse import PIECE, content
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import PORT, SwarmNode, node_key
from p2pdist.test.test_tls import foreign

SECRET, NEW = (Secret.new(random.Random(number).randbytes) for number in (1, 2))
KEYS, NEW_KEYS = (NetworkKeys.from_secret(secret.raw) for secret in (SECRET, NEW))
WRONG = NetworkKeys.from_secret(b"w" * 32)
MUCH = 1 << 20


class Raw(Protocol):
    """One connection that says what it is told, and keeps what it hears.

    Attributes:
        heard: everything.
        lost: why it ended, and how long after it began; ``None`` while it is open.
    """

    def __init__(self, clock: Any, say: Callable[[Raw], None]) -> None:
        self.heard = b""
        self.lost: tuple[type[BaseException] | None, float] | None = None
        self._clock = clock
        self._say = say

    def connectionMade(self) -> None:
        """Say it."""
        self._began = self._clock.seconds()
        self._say(self)

    def say(self, data: bytes) -> None:
        """Send bytes."""
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note how and when."""
        self.lost = (reason.type, self._clock.seconds() - self._began)


class Shaker(Raw):
    """One that speaks TLS with a context of its own, after a knock of whatever secret.

    Attributes:
        accepted: whether its handshake came to an end.
        plain: what it could read.
    """

    def __init__(
        self, clock: Any, context: SSL.Context, keys: NetworkKeys | None, callee: NodeID
    ) -> None:
        super().__init__(clock, Shaker.begin)  # type: ignore[arg-type]
        self.plain = b""
        self.accepted = False
        self.then: Callable[[Shaker], None] = lambda _: None
        self.tls = SSL.Connection(context)
        self.tls.set_connect_state()
        self._keys = keys
        self._callee = callee

    def begin(self) -> None:
        """Knock, if it can, and say hello."""
        self._shake()
        hello = self.tls.bio_read(MUCH)
        if self._keys is not None:
            chance = random.Random(hello).randbytes
            self.say(knock(self._keys, self._callee, chance, hello))
        self.say(hello)

    def _speak(self) -> None:
        if self.accepted:
            self.then(self)

    def _shake(self) -> None:
        with contextlib.suppress(SSL.Error):
            self.tls.do_handshake()
            self.accepted = True

    def dataReceived(self, data: bytes) -> None:
        """Go on."""
        super().dataReceived(data)
        self.tls.bio_write(data)
        if not self.accepted:
            self._shake()
            self.flush()
            self._speak()
        with contextlib.suppress(SSL.Error):
            while self.accepted:
                self.plain += self.tls.recv(MUCH)

    def flush(self) -> None:
        """Send what TLS has to say."""
        with contextlib.suppress(SSL.WantReadError):
            self.say(self.tls.bio_read(MUCH))


class Wire(StringTransport):
    """A transport that cannot be tuned."""

    protocol: Any
    aborted = False

    def abortConnection(self) -> None:
        """Note it."""
        self.aborted = True

    def setTcpNoDelay(self, _on: bool) -> None:
        """No use here."""

    def getHandle(self) -> Wire:
        """There is nothing beneath."""
        return self

    def setsockopt(self, *_option: object) -> None:
        """No use here."""


class PrivateCase(TestCase):
    """A private seed, and whoever calls it."""

    def setUp(self) -> None:
        """One seed."""
        self.world: World
        self.world, _ = lan()
        self.made = content({"the-weights-nobody-must-know-of.bin": 6 * PIECE})
        self.nodes: list[SwarmNode] = []
        self.addCleanup(self.stop)
        self.seed = self.node(1)
        self.seed.seed()
        self.callers = 0
        self.chance = random.Random(8)

    def stop(self) -> None:
        """Stop what runs; nothing may be left."""
        for node in self.nodes:
            node.stop()
        self.world.run(limits.CLOSE_S + 1)
        for node in self.nodes:
            self.assertEqual([], node.host.leaks())

    def node(self, number: int, networks: tuple[NetworkKeys, ...] = (KEYS,)) -> SwarmNode:
        """Set up a node of the content."""
        self.nodes.append(SwarmNode(self.world, number, self.made, networks=networks))
        return self.nodes[-1]

    def call(self, caller: Raw, number: int = 1) -> Raw:
        """Let somebody call a node."""
        self.callers += 1
        host = self.world.host(f"10.0.9.{self.callers}")
        factory = ClientFactory.forProtocol(lambda: caller)
        factory.noisy = False
        host.reactor.connectTCP(f"10.0.0.{number}", PORT, factory)
        return caller

    def raw(self, *data: bytes, number: int = 1) -> Raw:
        """Let somebody call and say these bytes."""
        return self.call(Raw(self.seed.host.reactor, lambda raw: raw.say(b"".join(data))), number)

    def shaker(
        self, context: SSL.Context, keys: NetworkKeys | None = None, number: int = 1
    ) -> Shaker:
        """Let somebody call who speaks TLS."""
        callee = node_key(number).node_id
        caller = Shaker(self.seed.host.reactor, context, keys, callee)
        self.call(caller, number)
        return caller


class TransferTests(PrivateCase):
    """Who has the secret."""

    def test_transfers(self) -> None:
        """A content goes from node to node, and arrives as it was."""
        leeches = [self.node(2), self.node(3)]
        for leech in leeches:
            leech.leech()
            leech.meet(*(node for node in self.nodes if node is not leech))
        self.world.run_until(lambda: all(leech.complete for leech in leeches), timeout=60)
        for leech in leeches:
            self.assertEqual(b"".join(self.made.files().values()), leech.saved())

    def test_nothing_in_the_clear(self) -> None:
        """Neither the wire nor a ``repr`` shows secret, keys, hash_key, names, ids or bytes."""
        leech = self.node(2)
        leech.leech()
        wire = self.tap()
        leech.meet(self.seed)
        self.world.run_until(lambda: leech.complete, timeout=60)
        hidden = [
            *keys_of(SECRET),
            KEYS.knock_key(),
            KEYS.tcp_key(self.made.hash_key),
            self.made.hash_key,
            self.seed.transfer.topic,
        ]
        hidden += [key for n in (1, 2) for key in (node_key(n).public, node_key(n).node_id)]
        hidden += [name.encode() for name in self.made.files()]
        hidden += [self.made.piece(index)[100:140] for index in range(self.made.count)]
        self.assertGreater(sum(map(len, wire)), self.made.metadata.length)
        self.assertEqual([], found([b"".join(wire)], hidden))
        self.assertNotIn(b"P2PDIST", b"".join(wire))
        self.assertEqual([], found([repr(self.seed.swarms).encode()], hidden[:8]))

    def tap(self) -> list[bytes]:
        """Return a list that gets every byte that goes over TCP from now on."""
        wire: list[bytes] = []
        push = Pipe.push

        def tapped(pipe: Pipe, data: bytes) -> None:
            wire.append(bytes(data))
            push(pipe, data)

        self.patch(Pipe, "push", tapped)
        return wire

    def test_two_secrets(self) -> None:
        """Who has both secrets meets who has either, whichever comes first in his list."""
        both = self.node(2, (NEW_KEYS, KEYS))
        new = self.node(3, (NEW_KEYS,))
        for node, other in ((both, self.seed), (new, both)):
            node.leech()
            node.meet(other)
        self.world.run_until(lambda: both.complete and new.complete, timeout=60)

    def test_a_public_member_of_the_same_content(self) -> None:
        """Neither side's connections reach a content that is public there and private here."""
        public = self.node(2, (PUBLIC_NETWORK,))
        public.leech()
        public.meet(self.seed)
        self.seed.meet(public)
        self.world.run(120)
        self.assertEqual(0, public.progress.peers)
        self.assertEqual(0, self.seed.progress.peers)
        self.assertFalse(public.complete)


class StrangerTests(PrivateCase):
    """Who has no secret hears nothing, and is reset, whatever he tries."""

    def recorded(self) -> bytes:
        """Return what an honest dialler began with, as somebody on the way saw it."""
        wire: list[bytes] = []
        push = Pipe.push

        def tapped(pipe: Pipe, data: bytes) -> None:
            wire.append(bytes(data))
            push(pipe, data)

        self.patch(Pipe, "push", tapped)
        leech = self.node(2)
        leech.leech()
        leech.meet(self.seed)
        self.world.run_until(lambda: leech.complete, timeout=60)
        self.patch(Pipe, "push", push)
        self.world.wait_for(leech.transfer.stop())
        return wire[0]

    def assert_refused(self, callers: list[Raw], within_s: float = limits.HANDSHAKE_S) -> None:
        """Fail unless all were reset in time without a byte, and nobody got in."""
        self.world.run(limits.HANDSHAKE_S + 1)
        for caller in callers:
            self.assertEqual(b"", caller.heard)
            assert caller.lost is not None, "still open"
            kind, after_s = caller.lost
            self.assertIs(ConnectionLost, kind)
            self.assertLessEqual(after_s, within_s + 0.5)
        self.assertEqual(0, self.seed.progress.peers)
        self.assertEqual({}, self.seed.listener._callers)
        self.assertEqual({}, self.seed.listener._doors)

    def test_other_protocols(self) -> None:
        """A public hello for the very content, TLS without a knock, HTTP, noise: reset at once."""
        hello = PublicDialler(self.made.hash_key, node_key(9), b"n" * 32).start()
        noise = random.Random(4).randbytes(200)
        callers = [
            self.raw(PREFACE, encode(hello)),
            self.raw(b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\nAccept: */*\r\n\r\n"),
            self.raw(bytes(200)),
            self.raw(noise),
            self.shaker(foreign(node_key(9).private)),
            self.shaker(foreign(node_key(9).private, version=SSL.TLS1_2_VERSION)),
        ]
        self.assert_refused(callers, within_s=1.0)

    def test_wrong_secret(self) -> None:
        """The knock of another network, around a perfect ClientHello, opens nothing."""
        self.assert_refused([self.shaker(foreign(node_key(9).private), WRONG)], within_s=1.0)

    def test_replayed(self) -> None:
        """A recorded beginning opens nothing a second time, nor at another node."""
        data = self.recorded()
        self.node(3).seed()
        others = [self.raw(data), self.raw(data, number=3)]
        self.assert_refused(others, within_s=1.0)

    def test_replayed_after_a_restart(self) -> None:
        """A node that forgot it answers once, with bytes nobody can read; there it ends."""
        data = self.recorded()
        self.seed.listener._doorkeeper._seen.clear()
        caller = self.raw(data, bytes(100))
        self.world.run(0.5)
        silent = self.raw(data)
        self.world.run(limits.HANDSHAKE_S + 1)
        self.assertEqual(b"", silent.heard)
        self.assertEqual(0, self.seed.progress.peers)
        for hidden in (node_key(1).public, node_key(1).node_id, KEYS.tag):
            self.assertNotIn(hidden, caller.heard)
        for each in (caller, silent):
            assert each.lost is not None
            self.assertIs(ConnectionLost, each.lost[0])

    def test_truncated(self) -> None:
        """Cut anywhere, byte by byte too, it is reset when the time is over, in silence."""
        context = Credentials(node_key(9))._context
        tls = SSL.Connection(context)
        tls.set_connect_state()
        self.assertRaises(SSL.WantReadError, tls.do_handshake)
        hello = tls.bio_read(MUCH)
        data = knock(KEYS, node_key(1).node_id, random.Random(6).randbytes, hello) + hello
        cuts = (0, 1, KNOCK_BYTES - 1, KNOCK_BYTES, KNOCK_BYTES + 3, 200, len(data) - 1)
        self.assert_refused([self.raw(data[:cut]) for cut in cuts])

    def test_mangled(self) -> None:
        """With a bit flipped anywhere in the beginning it is refused like everything else."""
        data = self.recorded()
        self.seed.listener._doorkeeper._seen.clear()
        chance = random.Random(7)
        callers = []
        for byte in [*range(37), *(chance.randrange(len(data)) for _ in range(20))]:
            flipped = bytearray(data)
            flipped[byte] ^= 1 << chance.randrange(8)
            callers.append(self.raw(bytes(flipped)))
            self.world.run(0.5)
        self.assert_refused(callers)

    def test_public_callers_learn_nothing_of_private_contents(self) -> None:
        """A node that is public too says "unknown" for a private topic as for any other."""
        self.seed.listener._public = lambda: True
        said = []
        for hash_key in (self.made.hash_key, HashKey(b"u" * 32)):
            hello = PublicDialler(hash_key, node_key(9), b"n" * 32).start()
            caller = self.raw(PREFACE, encode(hello))
            self.world.run(5)
            said.append((caller.heard, caller.lost and caller.lost[0]))
        self.assertEqual(said[0], said[1])
        self.assertEqual(PREFACE + encode(Bye(ByeReason.UNKNOWN_TOPIC)), said[0][0])


class DiallerTests(PrivateCase):
    """Who is called is not who should be there."""

    def answered_by(self, make: Callable[[], Protocol]) -> SwarmNode:
        """Return a leech that calls somebody else where the seed should be."""
        self.callers += 1
        false = Address(f"10.0.7.{self.callers}", PORT)
        self.world.host(false.host).reactor.listenTCP(PORT, Factory.forProtocol(make))
        leech = self.node(20 + self.callers)
        leech.leech()
        leech.transfer.peer_joined(false, self.seed.key.node_id, dial_now=True)
        return leech

    def test_plain_answer(self) -> None:
        """To a plain preface, or silence, the dialler has said no more than a knock and hello."""
        clock = self.seed.host.reactor
        for answer in (PREFACE, b"", b"\x15\x03\x03\x00\x02\x02\x46"):
            heard: list[Raw] = []
            say = partial(Raw.say, data=answer)
            leech = self.answered_by(partial(self.listen_to, clock, say, heard))
            self.world.run(limits.HANDSHAKE_S + 1)
            self.assertEqual(0, leech.progress.peers)
            first = heard[0]
            size = int.from_bytes(first.heard[KNOCK_BYTES + 3 : KNOCK_BYTES + 5], "big")
            self.assertEqual(KNOCK_BYTES + 5 + size, len(first.heard))
            assert first.lost is not None
            self.assertLessEqual(first.lost[1], limits.HANDSHAKE_S + 0.5)

    def listen_to(self, clock: Any, say: Callable[[Raw], None], heard: list[Raw]) -> Raw:
        """Make who answers, and keep it."""
        heard.append(Raw(clock, say))
        return heard[-1]

    def test_relayed(self) -> None:
        """Who sits in between and passes everything on is only a part of the way."""
        man = Man(self.world.host("10.0.8.1"), self.seed.address)
        leech = self.answered_by(man.build)
        self.world.run_until(lambda: leech.complete, timeout=60)
        self.assertGreater(len(man.passed), self.made.metadata.length)
        hidden = [*keys_of(SECRET), self.made.hash_key, node_key(1).public, node_key(2).public]
        self.assertEqual([], found([bytes(man.passed)], hidden))

    def test_man_in_the_middle(self) -> None:
        """Who changes any byte on the way, in either direction, gets nobody connected."""
        for number, at in enumerate((3, 40, 90, 700, 1500, 1700, 2000, 2400, 2600), start=1):
            man = Man(self.world.host(f"10.0.8.{number}"), self.seed.address, at)
            leech = self.answered_by(man.build)
            self.world.run(1.5)
            self.assertGreater(len(man.passed), at)
            self.assertEqual((0, 0), (leech.progress.peers, self.seed.progress.peers), at)
            self.world.wait_for(leech.transfer.stop())

    def test_another_member(self) -> None:
        """A member of the network, with the content, who is not the node called is no peer."""
        other = self.node(3)
        other.seed()
        leech = self.node(2)
        leech.leech()
        leech.transfer.peer_joined(other.address, self.seed.key.node_id, dial_now=True)
        self.world.run(30)
        self.assertEqual((0, 0), (leech.progress.peers, other.progress.peers))


class Man:
    """Sits in between: passes bytes on, and flips one bit of a byte if told to.

    Attributes:
        passed: every byte, in both directions.
    """

    def __init__(self, host: Host, target: Address, flip_at: int | None = None) -> None:
        self.host = host
        self.passed = bytearray()
        self._target = target
        self._flip_at = flip_at

    def build(self) -> Raw:
        """Take a call, and make one."""
        clock = self.host.reactor
        near, far = Raw(clock, lambda _: None), Raw(clock, lambda _: None)

        def connected(_raw: Raw) -> None:
            near.dataReceived = lambda data: far.say(self._pass(data))  # type: ignore[method-assign]
            far.dataReceived = lambda data: near.say(self._pass(data))  # type: ignore[method-assign]
            far.say(self._pass(near.heard))

        def end(end: Raw) -> Callable[..., None]:
            return lambda *_: end.transport and end.transport.abortConnection()  # type: ignore[attr-defined, return-value]

        far._say = connected
        near.connectionLost, far.connectionLost = end(far), end(near)  # type: ignore[method-assign]
        factory = ClientFactory.forProtocol(lambda: far)
        clock.connectTCP(self._target.host, self._target.port, factory)
        return near

    def _pass(self, data: bytes) -> bytes:
        begin = len(self.passed)
        self.passed += data
        if self._flip_at is not None and begin <= self._flip_at < begin + len(data):
            changed = bytearray(data)
            changed[self._flip_at - begin] ^= 1
            return bytes(changed)
        return data


class InsiderTests(PrivateCase):
    """Who has the secret, and lacks something else, hears no more than that there is a node."""

    def assert_reset(self, caller: Shaker, plain: bytes = PREFACE) -> None:
        """Fail unless he was reset, with nothing said inside TLS but the preface."""
        self.world.run(limits.HANDSHAKE_S + 1)
        assert caller.lost is not None
        self.assertIs(ConnectionLost, caller.lost[0])
        self.assertLessEqual(caller.lost[1], limits.HANDSHAKE_S + 0.5)
        self.assertIn(caller.plain, (b"", plain))
        self.assertEqual(0, self.seed.progress.peers)

    def test_old_versions(self) -> None:
        """TLS 1.2 behind a good knock gets no byte, not even an alert."""
        caller = self.shaker(foreign(node_key(9).private, version=SSL.TLS1_2_VERSION), KEYS)
        self.assert_reset(caller)
        self.assertEqual(b"", caller.heard)

    def test_no_alert(self) -> None:
        """What TLS would say to a hello it does not like is not even handed to the socket."""
        tls = SSL.Connection(foreign(node_key(9).private, version=SSL.TLS1_2_VERSION))
        tls.set_connect_state()
        self.assertRaises(SSL.WantReadError, tls.do_handshake)
        hello, peer = tls.bio_read(MUCH), IPv4Address("TCP", "10.0.9.9", 1)
        door = self.seed.listener.buildProtocol(peer)
        assert door is not None
        wire = Wire(peerAddress=peer)
        door.makeConnection(wire)
        door.dataReceived(knock(KEYS, node_key(1).node_id, self.chance.randbytes, hello) + hello)
        self.assertEqual(b"", wire.value())
        self.assertTrue(wire.aborted)
        wire.protocol.connectionLost(Failure(ConnectionLost()))

    def test_no_certificate(self) -> None:
        """Who shows no certificate, or our own, is reset."""
        for context in (foreign(), foreign(node_key(1).private)):
            self.assert_reset(self.shaker(context, KEYS))

    def test_other_contents(self) -> None:
        """A proof of another content, or another network's, and noise, end alike."""
        for said in (
            encode(Binding(b"x" * 32)),
            encode(Bye(1)),
            encode(PublicDialler(self.made.hash_key, node_key(9), bytes(32)).start()),
            b"noise" * 100,
            b"",
        ):
            caller = self.shaker(foreign(node_key(9).private), KEYS)

            def speak(shaker: Shaker, said: bytes = said) -> None:
                shaker.tls.sendall(PREFACE + said)
                shaker.flush()

            caller.then = speak
            self.assert_reset(caller)
            self.assertTrue(caller.accepted)

    def test_slow_proof(self) -> None:
        """The deadline counts from the first moment, over TLS and proof together."""
        caller = self.shaker(foreign(node_key(9).private), KEYS)
        self.world.run(1)
        self.assertTrue(caller.accepted)
        self.assert_reset(caller)

    def test_handshakes_are_rationed(self) -> None:
        """More handshakes than RATE_TLS_HANDSHAKES are not begun, nor RATE_TLS_OF_HOST for one."""
        begun: list[object] = []
        accept = Credentials.accept

        def counted(credentials: Credentials) -> Channel:
            begun.append(credentials)
            return accept(credentials)

        self.patch(Credentials, "accept", counted)
        per_second, burst = limits.RATE_TLS_HANDSHAKES
        self.flood(f"10.0.9.{number}" for number in range(int(burst + per_second)))
        self.assertIn(len(begun), range(int(burst), int(burst + per_second)))
        self.world.run(30)
        begun.clear()
        _, burst = limits.RATE_TLS_OF_HOST
        self.flood(["9.9.9.9"] * int(2 * burst))
        self.assertIn(len(begun), range(int(burst), int(burst) + 3))

    def flood(self, hosts: Iterable[str]) -> None:
        """Let callers from these addresses knock well, and hang up."""
        tls = SSL.Connection(foreign())
        tls.set_connect_state()
        self.assertRaises(SSL.WantReadError, tls.do_handshake)
        hello, chance = tls.bio_read(MUCH), self.chance.randbytes
        for host in hosts:
            door = self.seed.listener.buildProtocol(IPv4Address("TCP", host, 1))
            assert door is not None
            door.makeConnection(Wire(peerAddress=IPv4Address("TCP", host, 1)))
            door.dataReceived(knock(KEYS, node_key(1).node_id, chance, hello) + hello)
            assert door.transport is not None
            protocol = getattr(door.transport, "protocol", door)
            protocol.connectionLost(Failure(ConnectionLost()))


class ServiceTests(TestCase):
    """Whole services."""

    def setUp(self) -> None:
        """A network without hosts."""
        self.world, _ = lan()
        self.stations: list[Station] = []
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop what runs; nothing may be left."""
        for station in self.stations:
            station.stop()

    def station(self, number: int) -> Station:
        """Set up a machine."""
        self.stations.append(Station.at(self.world, f"10.0.0.{number}"))
        return self.stations[-1]

    def test_private_and_public_do_not_cross(self) -> None:
        """One process has both; private peers get the private content, public ones the other."""
        private, public = (
            content({"private.bin": 150_000}),
            content({"public.bin": 150_000}, seed=3),
        )
        both, inside, outside = self.station(1), self.station(2), self.station(3)
        both.store(private)
        both.store(public)
        wanted = evolve(pointing(private, both), secrets=(SECRET,))
        both.run(wanted, pointing(public, both))
        inside.run(wanted)
        outside.run(pointing(public, both), pointing(private, both))
        assert outside.service is not None
        sessions = outside.service.contents.sessions
        self.world.run_until(lambda: inside.holds(private) and outside.holds(public), timeout=60)
        self.world.run(60)
        self.assertFalse(outside.holds(private), "the hash_key alone opens nothing")
        self.assertIsNot(Stage.SEEDING, sessions[private.hash_key].stage)
        self.assertFalse(inside.holds(public))

    def test_private_networks_do_not_cross(self) -> None:
        """Who is in one of a process's networks gets nothing of the other, though he knows it."""
        one, two = (content({f"{name}.bin": 150_000}) for name in ("one", "two"))
        both, inside = self.station(1), self.station(2)
        both.store(one)
        both.store(two)
        first = evolve(pointing(one, both), secrets=(SECRET,))
        both.run(first, evolve(pointing(two, both), secrets=(NEW,)))
        inside.run(first, evolve(pointing(two, both), secrets=(SECRET,)))
        self.world.run_until(lambda: inside.holds(one), timeout=60)
        self.world.run(60)
        self.assertFalse(inside.holds(two))

    def test_rotation(self) -> None:
        """While a secret is replaced a content goes from the old network to the new one."""
        made = content({"file.bin": 150_000})
        old, both, new = (self.station(number) for number in (1, 2, 3))
        old.store(made)
        entry = pointing(made, old, both)
        for station, secrets in ((old, (SECRET,)), (both, (NEW, SECRET)), (new, (NEW,))):
            station.run(evolve(entry, secrets=secrets))
        self.world.run_until(lambda: both.holds(made) and new.holds(made), timeout=120)
