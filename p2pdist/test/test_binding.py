"""Tests for :mod:`p2pdist.swarm.binding`."""

from __future__ import annotations

import contextlib

from attrs import evolve

from p2pdist.errors import AuthenticationFailed, RemoteProtocolError, UnexpectedMessage
from p2pdist.ids import HashKey
from p2pdist.keys import NetworkKeys, mac
from p2pdist.swarm.binding import PrivateAcceptor, PrivateDialler, Secured
from p2pdist.swarm.messages import Binding, Message
from p2pdist.test.strategies import handshake_messages
from p2pdist.test.support import TestCase, given
from p2pdist.test.swarmfakes import node_key

HASH_KEY, OTHER = HashKey(b"h" * 32), HashKey(b"o" * 32)
KEYS, WRONG = (NetworkKeys.from_secret(bytes([number]) * 32) for number in (1, 2))
ALICE, BOB, EVE = node_key(1), node_key(2), node_key(3)
CHANNEL = Secured(ALICE.public, BOB.public, b"e" * 32)


def dialler(
    channel: Secured = CHANNEL, keys: NetworkKeys = KEYS, hash_key: HashKey = HASH_KEY
) -> tuple[PrivateDialler, Binding]:
    """Alice dials: return her side and what she says."""
    side = PrivateDialler(hash_key, keys.tcp_key(hash_key))
    side.start()
    return side, side.secured(channel)


def acceptor(channel: Secured = CHANNEL, keys: NetworkKeys = KEYS) -> PrivateAcceptor:
    """Bob is called, who has two contents."""
    side = PrivateAcceptor(lambda: [(key, keys.tcp_key(key)) for key in (OTHER, HASH_KEY)])
    side.start()
    side.secured(channel)
    return side


class BindingTests(TestCase):
    """Two sides that mean it."""

    def test_both_prove_themselves(self) -> None:
        """Two messages later each knows who the other is, and Bob which content is meant."""
        (alice, first), bob = dialler(), acceptor()
        self.assertIsNone(bob.peer)
        answer = bob.receive(first)
        self.assertEqual((ALICE.node_id, HASH_KEY), (bob.peer, bob.content))
        self.assertIsNone(alice.peer)
        alice.receive(answer)
        self.assertEqual(BOB.node_id, alice.peer)

    def test_bytes(self) -> None:
        """The macs are over exactly these texts, under a key of network and content."""
        (_, first), bob = dialler(), acceptor()
        key = mac(KEYS.prk, b"tcp" + HASH_KEY + b"\x01")
        rest = HASH_KEY + ALICE.public + BOB.public + b"e" * 32
        self.assertEqual(mac(key, b"p2pdist/1 client" + rest), first.mac)
        self.assertEqual(mac(key, b"p2pdist/1 server" + rest), bob.receive(first).mac)


class AttackTests(TestCase):
    """Somebody who must not get through."""

    def test_stranger(self) -> None:
        """Another secret, or a content Bob does not have, proves nothing; Bob says nothing."""
        for keys, hash_key in ((WRONG, HASH_KEY), (KEYS, HashKey(b"x" * 32))):
            _, first = dialler(keys=keys, hash_key=hash_key)
            bob = acceptor()
            self.assertRaises(AuthenticationFailed, bob.receive, first)
            self.assertIsNone(bob.peer)

    def test_false_acceptor(self) -> None:
        """Who answers without the secret, or for another content, is no peer of Alice's."""
        alice, _ = dialler()
        for keys, hash_key in ((WRONG, HASH_KEY), (KEYS, OTHER)):
            _, first = dialler(keys=keys, hash_key=hash_key)
            answer = acceptor(keys=keys).receive(first)
            self.assertRaises(AuthenticationFailed, alice.receive, answer)
        self.assertIsNone(alice.peer)

    def test_man_in_the_middle(self) -> None:
        """What is said in one channel fits no other: other keys, or only another exported value."""
        for other in (
            evolve(CHANNEL, exported=b"f" * 32),
            evolve(CHANNEL, dialler=EVE.public),
            evolve(CHANNEL, acceptor=EVE.public),
        ):
            (alice, first), bob = dialler(), acceptor(other)
            self.assertRaises(AuthenticationFailed, bob.receive, first)
            answer = acceptor(other).receive(dialler(other)[1])
            self.assertRaises(AuthenticationFailed, alice.receive, answer)

    def test_reflected(self) -> None:
        """Alice's own words are no answer, and Bob's no question."""
        (alice, first), bob = dialler(), acceptor()
        self.assertRaises(AuthenticationFailed, alice.receive, first)
        answer = bob.receive(first)
        self.assertRaises(AuthenticationFailed, acceptor().receive, answer)

    def test_every_bit_counts(self) -> None:
        """A mac with any bit flipped is refused by either side."""
        _, first = dialler()
        answer = acceptor().receive(first)
        for bit in range(256):
            mask = 1 << bit
            for said, side in ((first, acceptor()), (answer, dialler()[0])):
                flipped = int.from_bytes(said.mac, "big") ^ mask
                with self.assertRaises(AuthenticationFailed):
                    side.receive(Binding(flipped.to_bytes(32, "big")))

    def test_order(self) -> None:
        """Before TLS, twice, or something else: refused."""
        early = PrivateDialler(HASH_KEY, KEYS.tcp_key(HASH_KEY))
        self.assertRaises(UnexpectedMessage, early.receive, Binding(bytes(32)))
        called = PrivateAcceptor(list)
        self.assertRaises(UnexpectedMessage, called.receive, Binding(bytes(32)))
        (alice, first), bob = dialler(), acceptor()
        alice.receive(bob.receive(first))
        self.assertRaises(UnexpectedMessage, bob.receive, first)
        self.assertRaises(UnexpectedMessage, alice.receive, first)

    @given(handshake_messages())
    def test_anything_else_is_refused(self, message: Message) -> None:
        """No made-up message proves anything, and none raises anything else."""
        for side in (dialler()[0], acceptor()):
            with contextlib.suppress(RemoteProtocolError):
                side.receive(message)
            self.assertIsNone(side.peer)

    def test_keys_are_not_shown(self) -> None:
        """No ``repr`` shows a key."""
        told = repr(dialler()[0]) + repr(acceptor()) + repr(CHANNEL)
        for hidden in (KEYS.tcp_key(HASH_KEY), CHANNEL.exported):
            self.assertNotIn(repr(hidden), told)
