"""OpenSSH signatures: what counts, what does not, and that nothing hostile gets further."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable

from attrs import evolve
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.signatures import (
    KEY_TYPES,
    NAMESPACE,
    PrivateKey,
    PublicKey,
    Signature,
    parse_signature,
    public_key_of,
    sign,
)
from p2pdist.test.support import TestCase, given

TEXT = b'hash_key = "b3:..."\n'
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
P256 = ec.derive_private_key(0x1234567, ec.SECP256R1())
P384 = ec.derive_private_key(0x1234567, ec.SECP384R1())
P521 = ec.derive_private_key(0x1234567, ec.SECP521R1())
APPLICATION = b"ssh:"


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Return an RSA key, the same in one run."""
    return rsa.generate_private_key(65537, 2048)


def private_keys() -> dict[str, PrivateKey]:
    """Return one key of each kind that can sign without a token, by type."""
    keys = (ED25519, P256, P384, P521, rsa_key())
    return {public_key_of(key).kind: key for key in keys}


@functools.cache
def signed() -> tuple[bytes, ...]:
    """Return signatures of several kinds over ``TEXT``, the same in one run: ECDSA draws lots."""
    return tuple(blob_of(sign(key, TEXT).armored()) for key in (ED25519, P256, P521))


def string(data: bytes) -> bytes:
    """Return SSH's encoding of a string."""
    return len(data).to_bytes(4, "big") + data


def strings(*parts: bytes) -> bytes:
    """Return SSH's encoding of several."""
    return b"".join(map(string, parts))


def mpint(value: int) -> bytes:
    """Return SSH's encoding of a positive number."""
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def armor(blob: bytes) -> bytes:
    """Return the text of a signature file with this blob in it."""
    return (
        b"-----BEGIN SSH SIGNATURE-----\n"
        + base64.encodebytes(blob)
        + b"-----END SSH SIGNATURE-----\n"
    )


def blob_of(text: bytes) -> bytes:
    """Return what a signature file holds."""
    return base64.b64decode(b"".join(text.splitlines()[1:-1]))


def subject(text: bytes, namespace: str = NAMESPACE, algorithm: str = "sha512") -> bytes:
    """Return what a key signs, as PROTOCOL.sshsig says it."""
    digest = hashlib.new(algorithm, text).digest()
    return b"SSHSIG" + strings(namespace.encode(), b"", algorithm.encode(), digest)


def blob(key: bytes, proof: bytes = b"", **fields: bytes) -> bytes:
    """Return a signature's bytes, of which any field may be another."""
    return fields.get("magic", b"SSHSIG\0\0\0\1") + strings(
        key,
        fields.get("namespace", NAMESPACE.encode()),
        fields.get("reserved", b""),
        fields.get("algorithm", b"sha512"),
        proof,
    )


def on_token(private: PrivateKey, flags: int = 1) -> tuple[PublicKey, Callable[[bytes], bytes]]:
    """Return a key as a FIDO token has it, and what makes its signatures over a text."""
    plain = public_key_of(private)
    body = plain.blob[4 + len(plain.kind) :]
    kind = f"sk-{plain.kind}@openssh.com"
    key = PublicKey.from_blob(string(kind.encode()) + body + string(APPLICATION))

    def proof(text: bytes) -> bytes:
        state = bytes([flags]) + (7).to_bytes(4, "big")
        around = hashlib.sha256(APPLICATION).digest() + state + hashlib.sha256(text).digest()
        if isinstance(private, ed25519.Ed25519PrivateKey):
            made = private.sign(around)
        else:
            assert isinstance(private, ec.EllipticCurvePrivateKey)
            made = b"".join(
                map(mpint, decode_dss_signature(private.sign(around, ec.ECDSA(hashes.SHA256()))))
            )
        return strings(kind.encode(), made) + state

    return key, proof


class SignatureTests(TestCase):
    """Signing, and what a signature is worth."""

    def test_round_trip(self):
        """What any kind of key signed is read back the same and covers the text."""
        for kind, private in private_keys().items():
            made = sign(private, TEXT)
            found = parse_signature(made.armored())
            self.assertEqual(made, found)
            self.assertEqual((kind, NAMESPACE), (found.key.kind, found.namespace))
            self.assertTrue(found.covers(TEXT), kind)
            self.assertEqual(made.armored(), found.armored())

    def test_other_texts(self):
        """No other text is covered, not even one with a line end more."""
        for private in private_keys().values():
            made = sign(private, TEXT)
            for other in (b"", TEXT[:-1], TEXT + b"\n", TEXT.upper(), TEXT.replace(b"\n", b"\r\n")):
                self.assertFalse(made.covers(other))

    def test_other_purpose_and_key(self):
        """Namespace, hash and key are part of what is signed."""
        for private in private_keys().values():
            made = sign(private, TEXT)
            self.assertFalse(evolve(made, namespace="file").covers(TEXT))
            self.assertFalse(evolve(made, algorithm="sha256").covers(TEXT))
            self.assertFalse(evolve(made, key=public_key_of(OTHER)).covers(TEXT))
        self.assertTrue(sign(ED25519, TEXT, "file").covers(TEXT))

    def test_sha256(self):
        """SHA-256 of the text is as good as SHA-512."""
        proof = strings(b"ssh-ed25519", ED25519.sign(subject(TEXT, algorithm="sha256")))
        made = blob(public_key_of(ED25519).blob, proof, algorithm=b"sha256")
        self.assertTrue(parse_signature(armor(made)).covers(TEXT))

    def test_rsa_without_sha1(self):
        """RSA signs with SHA-2; ssh-rsa, which is SHA-1, does not count."""
        key = public_key_of(rsa_key())
        for kind, algorithm, counts in (
            (b"rsa-sha2-512", hashes.SHA512(), True),
            (b"rsa-sha2-256", hashes.SHA256(), True),
            (b"ssh-rsa", hashes.SHA1(), False),
            (b"rsa-sha2-256", hashes.SHA512(), False),
            (b"ssh-ed25519", hashes.SHA512(), False),
        ):
            proof = rsa_key().sign(subject(TEXT), padding.PKCS1v15(), algorithm)
            made = parse_signature(armor(blob(key.blob, strings(kind, proof))))
            self.assertEqual(counts, made.covers(TEXT), kind)

    def test_rsa_without_leading_zeros(self):
        """A signature that begins with zeros may come without them; a longer one is none."""
        text = next(
            text
            for text in (b"%d" % number for number in range(10_000))
            if rsa_key().sign(subject(text), padding.PKCS1v15(), hashes.SHA512())[0] == 0
        )
        full = rsa_key().sign(subject(text), padding.PKCS1v15(), hashes.SHA512())
        key = public_key_of(rsa_key())
        for proof, counts in ((full, True), (full.lstrip(b"\0"), True), (b"\0" + full, False)):
            made = Signature(key, NAMESPACE, "sha512", strings(b"rsa-sha2-512", proof))
            self.assertEqual(counts, made.covers(text))

    def test_tokens(self):
        """A key on a FIDO token counts if somebody touched it, for its own text only."""
        for private in (ED25519, P256):
            for flags, counts in ((1, True), (5, True), (0, False), (4, False)):
                key, proof = on_token(private, flags)
                made = parse_signature(armor(blob(key.blob, proof(subject(TEXT)))))
                self.assertEqual(counts, made.covers(TEXT), (key.kind, flags))
                self.assertFalse(made.covers(TEXT + b" "))
            for cut in range(1, 7):
                short = evolve(made, proof=proof(subject(TEXT))[:-cut])
                self.assertFalse(short.covers(TEXT))
            self.assertFalse(evolve(made, proof=proof(subject(TEXT)) + b"\0").covers(TEXT))
            self.assertFalse(evolve(made, proof=sign(private, TEXT).proof).covers(TEXT))

    def test_weak_key(self):
        """Under a key of small order nothing is covered: its signatures fit many texts."""
        weak = PublicKey.from_blob(strings(b"ssh-ed25519", bytes(32)))
        made = Signature(weak, NAMESPACE, "sha512", strings(b"ssh-ed25519", bytes(64)))
        self.assertFalse(any(made.covers(b"%d" % number) for number in range(40)))


class HostileTests(TestCase):
    """What is not exactly a signature is refused, whatever it is."""

    def refused(self, text: bytes) -> str:
        """Return why a text is no signature."""
        return str(self.assertRaises(ValueError, parse_signature, text))

    def test_every_bit(self):
        """With any one bit of it changed, a signature is refused or covers nothing."""
        whole = blob_of(sign(ED25519, TEXT).armored())
        for at in range(len(whole)):
            for bit in range(8):
                changed = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
                try:
                    found = parse_signature(armor(changed))
                except ValueError:
                    continue
                self.assertFalse(found.covers(TEXT), (at, bit))

    def test_every_length(self):
        """Cut anywhere, or with anything behind it, it is refused."""
        for private in private_keys().values():
            whole = blob_of(sign(private, TEXT).armored())
            for end in range(len(whole)):
                self.refused(armor(whole[:end]))
            self.assertIn("more follows", self.refused(armor(whole + b"\0")))

    def test_proofs(self):
        """Whatever stands in place of the proof, nothing is covered and nothing raised."""
        for private in private_keys().values():
            made = sign(private, TEXT)
            for proof in (
                *(b"", b"\0" * 3, b"\xff" * 40, made.proof + b"\0", made.proof[:-1]),
                *(strings(made.key.kind.encode(), b""), strings(b"", b""), string(b"\xff")),
                strings(made.key.kind.encode(), b"\0" * 64),
                strings(made.key.kind.encode(), mpint(0) + mpint(0)),
                strings(made.key.kind.encode(), mpint(1 << 4000) + mpint(1)),
            ):
                self.assertFalse(evolve(made, proof=proof).covers(TEXT), (made.key.kind, proof))

    def test_armor(self):
        """Line ends and blanks around may differ; nothing else may stand there."""
        good = sign(ED25519, TEXT).armored()
        for same in (good.replace(b"\n", b"\r\n"), b"\n \n" + good + b"\n\n", good.strip()):
            self.assertEqual(parse_signature(good), parse_signature(same))
        for text in (
            *(b"", b"\n", b"x" + good, good + b"x", good + good, good.replace(b"SSH", b"PGP")),
            *(good.split(b"\n")[0], good.replace(b"U1NI", b"U1N", 1), b"\0" + good),
            *(good.replace(b"U1NI", b"U1N!", 1), armor(b""), TEXT),
        ):
            self.refused(text)

    def test_fields(self):
        """Other versions, hashes and what nobody has defined are refused by name."""
        key = public_key_of(ED25519).blob
        for fields, reason in (
            ({"magic": b"SSHSIG\0\0\0\2"}, "version 2"),
            ({"magic": b"SSHSIH\0\0\0\1"}, "no SSH signature"),
            ({"reserved": b"x"}, "nothing is defined"),
            ({"algorithm": b"sha1"}, "'sha1'"),
            ({"algorithm": b"SHA512"}, "only SHA-512"),
            ({"algorithm": b"\xff"}, "only SHA-512"),
        ):
            self.assertIn(reason, self.refused(armor(blob(key, **fields))))
        strange = parse_signature(armor(blob(key, namespace=b"p2pdist-descriptor\xff")))
        self.assertNotEqual(NAMESPACE, strange.namespace)
        self.assertFalse(strange.covers(TEXT))

    def test_size(self):
        """A signature with the largest key fits; above the bound it is not even looked at."""
        size = limits.SIGNER_RSA_BITS_MAX
        largest = blob(rsa_blob(size), strings(b"rsa-sha2-512", bytes(size // 8)))
        text = armor(largest)
        self.assertLessEqual(len(text), limits.SIGNATURE_BYTES)
        self.assertFalse(parse_signature(text).covers(TEXT))
        blanks = b" " * (limits.SIGNATURE_BYTES + 1 - len(text))
        parse_signature(text + blanks[:-1])
        self.assertIn("larger than", self.refused(text + blanks))

    @given(st.binary(max_size=400))
    def test_any_bytes(self, data: bytes):
        """Any bytes are a signature or a ValueError, as text, as blob, as key and as proof."""
        for text in (data, armor(data), armor(b"SSHSIG\0\0\0\1" + data), armor(blob(data))):
            self.refused(text)
        self.assertFalse(evolve(sign(ED25519, TEXT), proof=data).covers(TEXT))

    @given(st.data())
    def test_mutations(self, data: st.DataObject):
        """A signature with some bytes replaced is refused or covers nothing."""
        whole = data.draw(st.sampled_from(signed()))
        start = data.draw(st.integers(0, len(whole) - 1))
        end = data.draw(st.integers(start, len(whole)))
        changed = whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:]
        try:
            found = parse_signature(armor(changed))
        except ValueError:
            return
        self.assertEqual(changed == whole, found.covers(TEXT))


def rsa_blob(bits: int, exponent: int = 65537) -> bytes:
    """Return an RSA key with a modulus of so many bits, which nobody can use."""
    return string(b"ssh-rsa") + mpint(exponent) + mpint((1 << bits) - 1)


class KeyTests(TestCase):
    """Public keys."""

    def refused(self, data: bytes) -> str:
        """Return why some bytes are no key that counts."""
        return str(self.assertRaises(ValueError, PublicKey.from_blob, data))

    def test_kinds(self):
        """Every type that is promised is taken, and has a fingerprint and a line."""
        keys = [public_key_of(private) for private in private_keys().values()]
        keys += [on_token(private)[0] for private in (ED25519, P256)]
        self.assertEqual(KEY_TYPES, {key.kind for key in keys})
        for key in keys:
            self.assertEqual(key, PublicKey.from_text(*key.text.split()))
            self.assertRegex(key.fingerprint, r"\ASHA256:[A-Za-z0-9+/]{43}\Z")

    def test_not_taken(self):
        """DSA, certificates and unknown types are refused with what is taken."""
        for kind in (b"ssh-dss", b"ssh-ed25519-cert-v01@openssh.com", b"", b"\xff", b"x" * 999):
            self.assertIn("not taken, only Ed25519", self.refused(strings(kind, bytes(32))))

    def test_type_and_key_differ(self):
        """A line whose first word does not fit its key is refused."""
        words = public_key_of(ED25519).text.split()
        self.assertRaises(ValueError, PublicKey.from_text, "ssh-rsa", words[1])
        for text in ("", "é", words[1][:-1], words[1] + "!"):
            self.assertRaises(ValueError, PublicKey.from_text, words[0], text)

    def test_sizes(self):
        """Keys of other sizes than they should have are refused."""
        for size in (0, 31, 33):
            self.assertIn("32 bytes", self.refused(strings(b"ssh-ed25519", bytes(size))))
        for bits in (limits.SIGNER_RSA_BITS_MIN, limits.SIGNER_RSA_BITS_MAX):
            PublicKey.from_blob(rsa_blob(bits))
        for bits in (0, 1024, limits.SIGNER_RSA_BITS_MIN - 1, limits.SIGNER_RSA_BITS_MAX + 1):
            self.assertIn(f"{bits} bits", self.refused(rsa_blob(bits)))
        for exponent in (0, 1, 2, 1 << 64):
            self.refused(rsa_blob(2048, exponent))

    def test_curves(self):
        """A point that is not on the curve its type names is refused."""
        point = public_key_of(P256).blob[-65:]
        good = strings(b"ecdsa-sha2-nistp256", b"nistp256", point)
        self.assertEqual(public_key_of(P256).blob, good)
        for data in (
            strings(b"ecdsa-sha2-nistp384", b"nistp256", point),
            strings(b"ecdsa-sha2-nistp384", b"nistp384", point),
            strings(b"ecdsa-sha2-nistp256", b"", point),
            strings(b"ecdsa-sha2-nistp256", b"nistp256", b""),
            strings(b"ecdsa-sha2-nistp256", b"nistp256", b"\0"),
            strings(b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + bytes(64)),
            good + b"\0",
        ):
            self.refused(data)

    def test_signing_with_other_keys(self):
        """Keys that would not be accepted do not sign."""
        for private in (
            rsa.generate_private_key(65537, 1024),
            ec.derive_private_key(5, ec.SECP256K1()),
        ):
            self.assertRaises(ValueError, sign, private, TEXT)
