"""Keys: the node's own, a network's, and what is derived from them.

SHA-256 and HMAC-SHA256 throughout (decision 3); content hashes live in ``content``.
Job: derive; it neither stores nor sends. Threat: everything derived from the public network's
fixed secret is known to everybody and proves nothing. Tests: ``test_keys``.
"""

from __future__ import annotations

import hashlib
import hmac

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from p2pdist.ids import ID_BYTES, HashKey, NodeID, Topic

PUBLIC_SECRET = b"p2pdist public network"
"""The public network's "secret": published, so that one code path serves all (RFC 9001, 5.2)."""
PROOF_BYTES = 16
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


def node_id_of(public_key: bytes) -> NodeID:
    """Return the id of the node with this Ed25519 public key (32 bytes)."""
    return NodeID(hashlib.sha256(b"p2pdist/1 node" + public_key).digest()[:ID_BYTES])


def topic_of(hash_key: HashKey) -> Topic:
    """Return what stands for ``hash_key`` on UDP, so that relays do not learn the key itself."""
    return Topic(hashlib.sha256(b"p2pdist/1 topic" + hash_key).digest()[:ID_BYTES])


def mac(key: bytes, *parts: bytes) -> bytes:
    """Return HMAC-SHA256 (32 bytes) over the parts, each of fixed length or last."""
    return hmac.digest(key, b"".join(parts), "sha256")


class Mac:
    """HMAC-SHA256 under one key for many short texts: a third of the time :func:`mac` takes.

    Both hashes of RFC 2104 have taken in the key already; each text goes on with copies of them.

    Args:
        key: at most 64 bytes, SHA-256's block.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(hashlib.sha256().block_size, b"\0")
        assert len(block) == hashlib.sha256().block_size, len(key)
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, text: bytes) -> bytes:
        """Return the 32 bytes that ``mac(key, text)`` returns."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.digest()


def join_proof(
    hash_key: HashKey, label: bytes, rid: bytes, token: bytes, first: NodeID, second: NodeID
) -> bytes:
    """Return the 16 bytes that prove knowledge of ``hash_key`` in a join (decision 4).

    Args:
        hash_key: the secret both sides share.
        label: ``b"join"`` from the caller, ``b"joined"`` in the reply.
        rid: the call's correlation id, a nonce of the caller.
        token: the callee's address token, a nonce of the callee.
        first: who speaks.
        second: who is spoken to.
    """
    return mac(hash_key, label, rid, token, first, second)[:PROOF_BYTES]


def equal(a: bytes, b: bytes) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(a, b)


def _expand(prk: bytes, info: bytes, size: int) -> bytes:
    """HKDF-Expand for at most one block of SHA-256 (RFC 5869, 2.3)."""
    return hmac.digest(prk, info + b"\x01", "sha256")[:size]


@frozen
class NetworkKeys:
    """What one network's secret gives.

    Attributes:
        tag: 4 bytes that name the network in the clear.
        udp: 32 bytes, from which each sender's datagram key comes.
        private: whether the secret is one.
        prk: HKDF's pseudo-random key, for further keys.
    """

    tag: bytes
    udp: bytes = field(repr=False)
    private: bool
    prk: bytes = field(repr=False)

    @classmethod
    def from_secret(cls, secret: bytes | None) -> NetworkKeys:
        """Derive the keys; ``None`` gives the public network's."""
        prk = hmac.digest(b"p2pdist-v1", secret or PUBLIC_SECRET, "sha256")
        return cls(
            tag=_expand(prk, b"net-tag", 4),
            udp=_expand(prk, b"udp", 32),
            private=secret is not None,
            prk=prk,
        )

    def sender_key(self, boot_id: bytes) -> bytes:
        """Return the AES-256-GCM key of the process with this boot id."""
        return _expand(self.udp, b"sender" + boot_id, 32)

    def knock_key(self) -> bytes:
        """Return what a caller shows over TCP that he knows, to get an answer at all (32 bytes)."""
        return _expand(self.prk, b"knock", 32)

    def tcp_key(self, hash_key: HashKey) -> bytes:
        """Return what both sides of a private connection for a content prove to know (32 bytes)."""
        return _expand(self.prk, b"tcp" + hash_key, 32)


PUBLIC_NETWORK = NetworkKeys.from_secret(None)


@frozen
class NodeKey:
    """The node's Ed25519 key: a name that cannot be chosen freely, not a root of trust.

    Attributes:
        private: the key itself.
        public: its 32 raw public bytes.
        node_id: derived from them.
    """

    private: Ed25519PrivateKey = field(repr=False)
    public: bytes
    node_id: NodeID

    @classmethod
    def from_seed(cls, seed: bytes) -> NodeKey:
        """Make the key from 32 random bytes."""
        private = Ed25519PrivateKey.from_private_bytes(seed)
        public = private.public_key().public_bytes_raw()
        return cls(private=private, public=public, node_id=node_id_of(public))

    def sign(self, *parts: bytes) -> bytes:
        """Return the 64-byte signature over the parts."""
        return self.private.sign(b"".join(parts))


_SMALL_ORDER = frozenset(
    bytes.fromhex(y)
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""The y of all points of order 1 to 8 (the last two not reduced), sign bit cleared. Under such a
key one signature of zeros fits a quarter of all texts, none of them known. Source: libsodium."""


def weak_key(public_key: bytes) -> bool:
    """Tell whether a signature nobody made could verify under ``public_key`` (32 bytes)."""
    return public_key[:-1] + bytes([public_key[-1] & 0x7F]) in _SMALL_ORDER


def signature_ok(public_key: bytes, signature: bytes, *parts: bytes) -> bool:
    """Tell whether ``signature`` over the parts is by ``public_key``; weak keys never sign."""
    if len(public_key) != PUBLIC_KEY_BYTES or weak_key(public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, b"".join(parts))
    except (InvalidSignature, ValueError):
        return False
    return True
