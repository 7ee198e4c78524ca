"""Tests of keys and what is derived from them: the values are part of the protocol."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import strategies as st

from p2pdist import keys
from p2pdist.ids import ID_BYTES, HashKey, NodeID
from p2pdist.keys import NetworkKeys, NodeKey
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

HASH_KEY = HashKey(bytes(range(32)))


class DerivationTests(TestCase):
    """Hashes of the protocol (decisions 2 to 4)."""

    def test_node_id(self):
        """node_id is the beginning of SHA-256 over a label and the public key."""
        expected = hashlib.sha256(b"p2pdist/1 node" + b"k" * 32).digest()[:20]
        self.assertEqual(expected, keys.node_id_of(b"k" * 32))

    def test_topic(self):
        """The topic stands for hash_key, has the size of a node id, and does not show the key."""
        topic = keys.topic_of(HASH_KEY)
        self.assertEqual(hashlib.sha256(b"p2pdist/1 topic" + HASH_KEY).digest()[:20], topic)
        self.assertEqual(ID_BYTES, len(topic))

    def test_mac(self):
        """The MAC is HMAC-SHA256 over the joined parts."""
        expected = hmac.new(b"key", b"abc", "sha256").digest()
        self.assertEqual(expected, keys.mac(b"key", b"a", b"bc"))

    @given(st.binary(max_size=64), st.binary(max_size=100), st.binary(max_size=100))
    def test_keyed_mac(self, key: bytes, text: bytes, other: bytes):
        """A MAC that keeps its key is the same MAC, for one text after another."""
        made = keys.Mac(key)
        for each in (text, other, text):
            self.assertEqual(keys.mac(key, each), made.digest(each))

    def test_join_proof_depends_on_everything(self):
        """Another key, label, nonce or id, or the ids swapped, gives another proof."""
        a, b = NodeID(b"a" * 20), NodeID(b"b" * 20)
        good = (HASH_KEY, b"join", b"r" * 8, b"t" * 8, a, b)
        others = [
            (HashKey(bytes(32)), *good[1:]),
            (good[0], b"joined", *good[2:]),
            (*good[:2], b"s" * 8, *good[3:]),
            (*good[:3], b"u" * 8, a, b),
            (*good[:4], b, a),
        ]
        proofs = {keys.join_proof(*arguments) for arguments in [good, *others]}
        self.assertEqual(1 + len(others), len(proofs))
        self.assertEqual({keys.PROOF_BYTES}, {len(proof) for proof in proofs})

    def test_equal(self):
        """Secrets are equal when their bytes are."""
        self.assertTrue(keys.equal(b"ab", b"ab"))
        self.assertFalse(keys.equal(b"ab", b"ac"))
        self.assertFalse(keys.equal(b"ab", b"a"))


class NetworkTests(TestCase):
    """What a network's secret gives."""

    @given(st.none() | st.binary(min_size=1, max_size=40), st.binary(min_size=16, max_size=16))
    def test_keys_are_hkdf(self, secret: bytes | None, boot_id: bytes):
        """Tag, datagram key and sender keys are what HKDF (RFC 5869) gives elsewhere."""
        network = NetworkKeys.from_secret(secret)

        def hkdf(info: bytes, length: int) -> bytes:
            material = secret or keys.PUBLIC_SECRET
            return HKDF(SHA256(), length, b"p2pdist-v1", info).derive(material)

        self.assertEqual(hkdf(b"net-tag", 4), network.tag)
        self.assertEqual(hkdf(b"udp", 32), network.udp)
        self.assertEqual(32, len(network.sender_key(boot_id)))
        self.assertNotEqual(network.sender_key(boot_id), network.sender_key(boot_id[::-1] + b"x"))

    def test_public_network(self):
        """Without a secret all get the same, public keys; with one, others."""
        self.assertEqual(keys.PUBLIC_NETWORK, NetworkKeys.from_secret(None))
        self.assertFalse(keys.PUBLIC_NETWORK.private)
        private = NetworkKeys.from_secret(b"secret")
        self.assertTrue(private.private)
        self.assertNotEqual(keys.PUBLIC_NETWORK.tag, private.tag)
        self.assertNotEqual(keys.PUBLIC_NETWORK.udp, private.udp)


class NodeKeyTests(TestCase):
    """The node's own key."""

    def test_seed_decides(self):
        """The same 32 bytes give the same node, others another."""
        node = NodeKey.from_seed(b"s" * 32)
        self.assertEqual(node.public, NodeKey.from_seed(b"s" * 32).public)
        self.assertEqual(keys.node_id_of(node.public), node.node_id)
        self.assertNotEqual(node.node_id, NodeKey.from_seed(b"t" * 32).node_id)
        self.assertEqual(keys.PUBLIC_KEY_BYTES, len(node.public))

    def test_known_signature(self):
        """The key is Ed25519: test 2 of RFC 8032, section 7.1."""
        seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
        public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        node = NodeKey.from_seed(bytes.fromhex(seed))
        signature = node.sign(b"", b"\x72")
        self.assertEqual(public, node.public.hex())
        self.assertTrue(signature.hex().startswith("92a009a9f0d4cab8720e820b5f642540"))
        self.assertEqual(keys.SIGNATURE_BYTES, len(signature))
        self.assertTrue(keys.signature_ok(node.public, signature, b"\x72"))

    @given(st.data(), st.binary(max_size=40))
    def test_changed_signatures_fail(self, data: st.DataObject, message: bytes):
        """A changed signature, message or key does not verify."""
        node = NodeKey.from_seed(b"s" * 32)
        signature = node.sign(message)
        forged = data.draw(strategies.mutations(signature))
        self.assertFalse(keys.signature_ok(node.public, forged, message))
        self.assertFalse(keys.signature_ok(node.public, signature, message, b"x"))
        other = NodeKey.from_seed(b"t" * 32).public
        self.assertFalse(keys.signature_ok(other, signature, message))

    def test_weak_keys_never_sign(self):
        """Under a key of small order a signature of zeros would fit a quarter of all texts."""
        for key in (bytes(32), bytes(31) + b"\x80", b"\x01" + bytes(31)):
            fits = [keys.signature_ok(key, bytes(64), bytes([text])) for text in range(64)]
            self.assertNotIn(True, fits)

    @given(st.binary(max_size=70), st.binary(max_size=70))
    def test_hostile_bytes_are_false(self, public_key: bytes, signature: bytes):
        """Keys and signatures of any size are answered with False, never an exception."""
        self.assertFalse(keys.signature_ok(public_key, signature, b"message"))
