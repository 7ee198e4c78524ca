"""Tests for :mod:`p2pdist.swarm.tls`: two sides whose bytes the test carries."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from OpenSSL import SSL

from p2pdist import limits
from p2pdist.errors import AuthenticationFailed, MalformedMessage, RemoteProtocolError
from p2pdist.swarm.tls import Channel, Credentials
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import node_key

ALICE, BOB, EVE = node_key(1), node_key(2), node_key(3)
MUCH = 1 << 20


def carry(source: Channel, target: Channel) -> bytes:
    """Carry what one side has to say to the other, and return it."""
    data = source.outgoing(MUCH)
    if data:
        target.feed(data)
    return data


def shaken(alice: Channel, bob: Channel) -> list[Any]:
    """Carry both sides through their handshake, and return what it settled."""
    settled: list[Any] = [None, None]
    while None in settled:
        for index, (side, other) in enumerate(((alice, bob), (bob, alice))):
            if settled[index] is None:
                settled[index] = side.shake()
                carry(side, other)
    return settled


def foreign(key: Any = None, *, version: int = SSL.TLS1_3_VERSION) -> SSL.Context:
    """Return a context that is not ours: another kind of key, or version; or no key."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(version)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if key is not None:
        digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        day = dt.datetime(2020, 1, 1)  # noqa: DTZ001 -- any
        name = x509.Name([])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 1)
            .not_valid_before(day)
            .not_valid_after(day)
            .sign(key, digest)
        )
        context.use_privatekey(key)
        context.use_certificate(certificate)
    return context


class ChannelTests(TestCase):
    """Two nodes."""

    def setUp(self) -> None:
        """Alice dials Bob."""
        self.alice = Credentials(ALICE).dial(BOB.node_id)
        self.bob = Credentials(BOB).accept()

    def test_settles(self) -> None:
        """Both learn the same keys and the same exported value, which no other connection has."""
        first, second = shaken(self.alice, self.bob)
        self.assertEqual(first, second)
        self.assertEqual((ALICE.public, BOB.public), (first.dialler, first.acceptor))
        self.assertTrue(self.alice.open and self.bob.open)
        self.setUp()
        self.assertNotEqual(first.exported, shaken(self.alice, self.bob)[0].exported)
        self.assertEqual(32, len(first.exported))

    def test_version(self) -> None:
        """It is TLS 1.3, and nothing of the certificates is in the clear."""
        said: list[bytes] = []
        for side in (self.alice, self.bob):
            outgoing = side.outgoing

            def tap(size: int, outgoing: Callable[[int], bytes] = outgoing) -> bytes:
                said.append(outgoing(size))
                return said[-1]

            side.outgoing = tap  # type: ignore[method-assign]
        shaken(self.alice, self.bob)
        self.assertEqual("TLSv1.3", self.alice._connection.get_protocol_version_name())
        for hidden in (ALICE.public, BOB.public):
            self.assertNotIn(hidden, b"".join(said))

    def test_data(self) -> None:
        """Bytes arrive as they were sent, in any cut, also straight in their place."""
        shaken(self.alice, self.bob)
        data = bytes(range(256)) * 300
        self.alice.write(data[:-1])
        self.alice.write(memoryview(data)[-1:])
        sealed = b"".join(iter(lambda: self.alice.outgoing(1000), b""))
        self.assertNotIn(data[:16], sealed)
        got = bytearray()
        for start in range(0, len(sealed), 7000):
            self.bob.feed(sealed[start : start + 7000])
            while part := self.bob.read():
                self.assertLessEqual(len(part), limits.TLS_RECORD_BYTES)
                got += part
        self.assertEqual(data, bytes(got))
        place = memoryview(bytearray(10))
        self.assertEqual(0, self.alice.read_into(place))
        self.bob.write(b"abc")
        carry(self.bob, self.alice)
        self.assertEqual(3, self.alice.read_into(place))
        self.assertEqual(b"abc", bytes(place[:3]))

    def test_flipped_bits(self) -> None:
        """A flipped bit in a record, or its end by an alert, ends the channel."""
        for bit in (0, 40, 200):
            self.setUp()
            shaken(self.alice, self.bob)
            self.alice.outgoing(MUCH)
            self.alice.write(b"some plain bytes")
            sealed = bytearray(self.alice.outgoing(MUCH))
            sealed[bit >> 3] ^= 1 << (bit & 7)
            self.bob.feed(bytes(sealed))
            self.assertRaises(MalformedMessage, self.bob.read)
        self.setUp()
        shaken(self.alice, self.bob)
        self.alice._connection.shutdown()
        carry(self.alice, self.bob)
        self.assertRaises(MalformedMessage, self.bob.read_into, memoryview(bytearray(9)))


class StrangerTests(TestCase):
    """Who is at the other end is not who should be."""

    def refused(self, ours: Channel, theirs: SSL.Connection) -> bytes:
        """Shake hands until ours refuses; return what it said before that."""
        said = b""
        for _ in range(6):
            try:
                settled = ours.shake()
            except AuthenticationFailed:
                return said
            self.assertIsNone(settled, "accepted")
            data = ours.outgoing(MUCH)
            said += data
            if data:
                theirs.bio_write(data)
            with contextlib.suppress(SSL.Error):
                theirs.do_handshake()
            try:
                ours.feed(theirs.bio_read(MUCH))
            except SSL.WantReadError:
                continue
            except RemoteProtocolError:
                return said
        raise AssertionError("neither refused nor accepted")

    def caller(self, context: SSL.Context) -> SSL.Connection:
        """Return a stranger who calls."""
        connection = SSL.Connection(context)
        connection.set_connect_state()
        return connection

    def test_callers(self) -> None:
        """Other versions, no certificate, keys of other kinds and our own key: refused."""
        ed = EVE.private
        for context in (
            foreign(ed, version=SSL.TLS1_2_VERSION),
            foreign(),
            foreign(ec.generate_private_key(ec.SECP256R1())),
            foreign(BOB.private),
        ):
            stranger = self.caller(context)
            with self.assertRaises(SSL.WantReadError):
                stranger.do_handshake()
            bob = Credentials(BOB).accept()
            bob.feed(stranger.bio_read(MUCH))
            self.refused(bob, stranger)
            self.assertFalse(bob.open)

    def test_another_node(self) -> None:
        """To who is not the node she called Alice says no more than her ClientHello."""
        for key in (EVE, ALICE):
            alice = Credentials(ALICE).dial(BOB.node_id)
            stranger = SSL.Connection(foreign(key.private))
            stranger.set_accept_state()
            said = self.refused(alice, stranger)
            self.assertEqual(len(said), 5 + int.from_bytes(said[3:5], "big"), "one record")

    def test_second_client_hello(self) -> None:
        """A ClientHello that cannot be answered as it is, is not answered: no knock covers two."""
        credentials = Credentials(BOB)
        credentials._context.set_tmp_ecdh(ec.SECP521R1())
        alice, bob = Credentials(ALICE).dial(BOB.node_id), credentials.accept()
        alice.shake()
        carry(alice, bob)
        bob.shake()
        self.assertRaises(AuthenticationFailed, bob.outgoing, MUCH)

    def test_handshakes_are_small(self) -> None:
        """More bytes than a handshake has are refused before they are looked at."""
        bob = Credentials(BOB).accept()
        bob.feed(bytes(limits.TLS_HANDSHAKE_BYTES))
        self.assertRaises(MalformedMessage, bob.feed, b"x")
        self.assertLess(limits.CLIENT_HELLO_BYTES, limits.TLS_HANDSHAKE_BYTES)
        alice = Credentials(ALICE).dial(BOB.node_id)
        alice.shake()
        self.assertLess(len(alice.outgoing(MUCH)), limits.CLIENT_HELLO_BYTES // 2)
