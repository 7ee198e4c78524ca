"""Tests for :mod:`p2pdist.swarm.handshake`."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

from attrs import evolve
from hypothesis import strategies as st

from p2pdist.errors import AuthenticationFailed, RemoteProtocolError, UnexpectedMessage
from p2pdist.ids import HashKey, Topic
from p2pdist.keys import topic_of
from p2pdist.swarm.handshake import Acceptor, Dialler
from p2pdist.swarm.messages import Bye, Hello, HelloReply, Message, Proof
from p2pdist.test.strategies import handshake_messages, mutations
from p2pdist.test.support import TestCase, given
from p2pdist.test.swarmfakes import node_key

HASH_KEY = HashKey(b"h" * 32)
ALICE, BOB = node_key(1), node_key(2)
M = TypeVar("M", Hello, HelloReply, Proof)


def find(topic: Topic) -> HashKey | None:
    """Know one content."""
    return HASH_KEY if topic == topic_of(HASH_KEY) else None


def dialler(nonce: bytes = b"d" * 32, hash_key: HashKey = HASH_KEY) -> Dialler:
    """Alice dials."""
    return Dialler(hash_key, ALICE, nonce)


def acceptor(nonce: bytes = b"a" * 32) -> Acceptor:
    """Bob is called."""
    return Acceptor(BOB, nonce, find)


def flipped(message: M, name: str, at: int) -> M:
    """Return the message with one byte of one field changed."""
    data = bytearray(getattr(message, name))
    data[at % len(data)] ^= 1
    changed: Any = bytes(data)
    return evolve(message, **{name: changed})


class HandshakeTests(TestCase):
    """Two sides that mean it."""

    def test_both_prove_themselves(self) -> None:
        """Three messages later each knows who the other is and what is wanted."""
        alice, bob = dialler(), acceptor()
        reply = bob.receive(alice.start())
        assert reply is not None
        self.assertIsNone(bob.peer)
        proof = alice.receive(reply)
        self.assertEqual(BOB.node_id, alice.peer)
        self.assertIsNone(bob.receive(proof))
        self.assertEqual(ALICE.node_id, bob.peer)
        self.assertEqual(HASH_KEY, bob.content)

    def test_hash_key_does_not_travel(self) -> None:
        """What goes over the wire does not contain the hash_key."""
        alice, bob = dialler(), acceptor()
        hello = alice.start()
        reply = bob.receive(hello)
        assert reply is not None
        proof = alice.receive(reply)
        said = (hello.topic, hello.nonce, reply.nonce, reply.signature, proof.signature)
        self.assertNotIn(HASH_KEY, b"".join(said))


class TamperingTests(TestCase):
    """Somebody in between, or at the other end, who must not get through."""

    def run_with(self, *, hello: str = "", reply: str = "", proof: str = "", at: int = 0) -> None:
        """Run a handshake with one byte of one field changed on its way."""
        alice, bob = dialler(), acceptor()
        first = alice.start()
        answer = bob.receive(flipped(first, hello, at) if hello else first)
        assert answer is not None
        last = alice.receive(flipped(answer, reply, at) if reply else answer)
        bob.receive(flipped(last, proof, at) if proof else last)

    @given(st.integers(0, 63))
    def test_each_field_is_covered(self, at: int) -> None:
        """One flipped bit in any field of any message ends the handshake."""
        self.run_with()
        tampered = [
            {"hello": "topic"},
            {"hello": "nonce"},
            {"hello": "public_key"},
            {"reply": "nonce"},
            {"reply": "public_key"},
            {"reply": "signature"},
            {"proof": "signature"},
        ]
        for change in tampered:
            with self.assertRaises(RemoteProtocolError):
                self.run_with(**change, at=at)

    def test_unknown_topic(self) -> None:
        """A topic we have no part in is refused by its own rule, without a signature."""
        other = dialler(hash_key=HashKey(b"o" * 32))
        with self.assertRaises(UnexpectedMessage) as caught:
            acceptor().receive(other.start())
        self.assertEqual("unknown-topic", caught.exception.rule)

    def test_topic_without_hash_key(self) -> None:
        """Who knows only the topic, as every relay does, proves nothing as dialler or acceptor."""
        wrong = HashKey(b"w" * 32)
        liar = Dialler(wrong, ALICE, b"d" * 32)
        hello = evolve(liar.start(), topic=topic_of(HASH_KEY))
        bob = acceptor()
        reply = bob.receive(hello)
        assert reply is not None
        with self.assertRaises(AuthenticationFailed):
            liar.receive(reply)
        proof = Proof(ALICE.sign(b"p2pdist/1 tcp", b"D", wrong, hello.nonce, reply.nonce))
        with self.assertRaises(AuthenticationFailed):
            bob.receive(proof)
        false_bob = Acceptor(BOB, b"a" * 32, lambda _: wrong)
        answer = false_bob.receive(dialler().start())
        assert answer is not None
        with self.assertRaises(AuthenticationFailed):
            dialler().receive(answer)

    def test_reflected(self) -> None:
        """A dialler that gets its own words back, or sends ours back as its proof, is refused."""
        alice, bob = dialler(), acceptor()
        hello = alice.start()
        mirrored = HelloReply(hello.nonce, hello.public_key, b"s" * 64)
        with self.assertRaises(UnexpectedMessage) as caught:
            alice.receive(mirrored)
        self.assertEqual("self-connection", caught.exception.rule)
        reply = bob.receive(hello)
        assert reply is not None
        with self.assertRaises(AuthenticationFailed):
            bob.receive(Proof(reply.signature))

    def test_signed_text(self) -> None:
        """The proof is over exactly these bytes; signed for the other role it is refused."""
        for role, good in ((b"D", True), (b"A", False)):
            bob = acceptor()
            bob.receive(dialler().start())
            keys = ALICE.public + BOB.public
            text = b"p2pdist/1 tcp" + role + HASH_KEY + b"d" * 32 + b"a" * 32 + keys
            try:
                bob.receive(Proof(ALICE.sign(text)))
            except AuthenticationFailed:
                self.assertFalse(good)
            self.assertEqual(ALICE.node_id if good else None, bob.peer)

    def test_replayed(self) -> None:
        """Messages recorded from one handshake do not fit the next: both nonces are new."""
        alice, bob = dialler(), acceptor()
        hello = alice.start()
        reply = bob.receive(hello)
        assert reply is not None
        proof = alice.receive(reply)
        again = acceptor(nonce=b"b" * 32)
        again.receive(hello)
        with self.assertRaises(AuthenticationFailed):
            again.receive(proof)
        with self.assertRaises(AuthenticationFailed):
            dialler(nonce=b"e" * 32).receive(reply)

    def test_calling_ourselves(self) -> None:
        """A connection to our own node is recognised on both sides by the key."""
        with self.assertRaises(UnexpectedMessage) as caught:
            Acceptor(ALICE, b"a" * 32, find).receive(dialler().start())
        self.assertEqual("self-connection", caught.exception.rule)

    def test_order(self) -> None:
        """Messages of the other side, twice, or not of the handshake at all are refused."""
        hello = dialler().start()
        reply = acceptor().receive(hello)
        assert reply is not None
        wrong: list[Message] = [hello, Proof(b"s" * 64), Bye(1)]
        for message in wrong:
            with self.assertRaises(UnexpectedMessage):
                dialler().receive(message)
        for other in (reply, Proof(b"s" * 64), Bye(1)):
            with self.assertRaises(UnexpectedMessage):
                acceptor().receive(other)
        bob = acceptor()
        bob.receive(hello)
        with self.assertRaises(UnexpectedMessage):
            bob.receive(hello)
        alice = dialler()
        alice.receive(reply)
        with self.assertRaises(UnexpectedMessage):
            alice.receive(reply)

    def test_weak_keys(self) -> None:
        """Keys under which a signature of zeros fits texts nobody knows are refused at sight."""
        zero = bytes(32)
        top = b"\xff" * 30
        weak = [zero, zero[:-1] + b"\x80", b"\x01" + zero[1:], b"\xec" + top + b"\x7f"]
        weak += [b"\xed" + top + b"\xff", b"\xee" + top + b"\x7f"]
        for key in weak:
            with self.assertRaises(AuthenticationFailed):
                acceptor().receive(Hello(topic_of(HASH_KEY), b"d" * 32, key))
            with self.assertRaises(AuthenticationFailed):
                dialler().receive(HelloReply(b"a" * 32, key, bytes(64)))

    @given(handshake_messages())
    def test_anything_else_is_refused(self, message: Message) -> None:
        """No made-up message proves anything, and none raises anything else."""
        for side in (dialler(), acceptor()):
            with contextlib.suppress(RemoteProtocolError):
                side.receive(message)
            self.assertIsNone(side.peer)

    @given(st.just(ALICE.public).flatmap(mutations))
    def test_keys_that_are_no_points(self, key: bytes) -> None:
        """A public key that is no point of the curve is a failed proof."""
        hello = Hello(topic_of(HASH_KEY), b"d" * 32, key)
        bob = acceptor()
        if bob.receive(hello) is not None:
            with self.assertRaises(AuthenticationFailed):
                bob.receive(Proof(b"s" * 64))
