"""OpenSSH signatures (``ssh-keygen -Y sign``): public keys, and the SSHSIG format.

Job: armored text to :class:`Signature` and back, public keys from and to their SSH form, whether a
signature fits a key and a text. Does NOT decide whom to trust (``signers``) or read any file; the
primitives are those of ``cryptography``.

Threat: every byte may come from the attacker. Parsing ends at once, with a value or a ValueError
and nothing else; sizes are bounded; what does not end where it should is refused. SHA-1, DSA and
certificates are not taken. A key of a stranger is never computed with: callers look it up first.
Source: PROTOCOL.sshsig, PROTOCOL.u2f of OpenSSH; RFC 4253, 5656, 8332, 8709. Tests:
``test_signatures``, ``test_sshkeygen``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Final, TypeAlias

from attrs import define, field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from p2pdist import limits
from p2pdist.keys import signature_ok

NAMESPACE: Final = "p2pdist-descriptor"
"""What our signatures are for: one made for e-mail or for git says nothing about a descriptor."""
SUFFIX: Final = ".sig"
"""Of the signature's file, beside the descriptor."""
PrivateKey: TypeAlias = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PRIVATE_KEYS: Final = (
    ed25519.Ed25519PrivateKey,
    ec.EllipticCurvePrivateKey,
    rsa.RSAPrivateKey,
)

_MAGIC: Final = b"SSHSIG"
_VERSION: Final = 1
_BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----"
_END: Final = b"-----END SSH SIGNATURE-----"
_LINE: Final = 70
_HASHES: Final = {"sha512": hashlib.sha512, "sha256": hashlib.sha256}
_CURVES: Final[dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]]] = {
    "nistp256": (ec.SECP256R1(), hashes.SHA256()),
    "nistp384": (ec.SECP384R1(), hashes.SHA384()),
    "nistp521": (ec.SECP521R1(), hashes.SHA512()),
}
_RSA_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "rsa-sha2-512": hashes.SHA512(),
    "rsa-sha2-256": hashes.SHA256(),
}
_USER_PRESENT: Final = 0x01
_EXPONENT_BITS: Final = 64
"""Of RSA; all that is in use is 65537, a large one only costs time."""


# --- SSH's own encoding ---


@define
class _Reader:
    """Takes SSH's fields off some bytes; a ValueError where they end too early."""

    data: bytes
    at: int = field(init=False, default=0)

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) != count:
            raise ValueError("it ends too early")
        self.at += count
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.number())

    def word(self) -> str:
        """Return a string that is a name; what is no ASCII stays recognisably wrong."""
        return self.string().decode("ascii", "backslashreplace")

    def mpint(self) -> int:
        """Return a positive number."""
        data = self.string()
        if not data or data[0] & 0x80:
            raise ValueError("a number in it is not positive")
        return int.from_bytes(data, "big")

    def end(self) -> None:
        if self.at != len(self.data):
            raise ValueError("more follows than belongs to it")


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _strings(*parts: bytes) -> bytes:
    return b"".join(_string(part) for part in parts)


def _mpint(value: int) -> bytes:
    return _string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


# --- public keys ---

_Verify: TypeAlias = Callable[[str, _Reader, bytes], bool]
"""Tells whether a signature (its type, and what follows that) fits a text."""


@frozen
class PublicKey:
    """An SSH public key whose signatures count.

    Attributes:
        kind: such as ``ssh-ed25519``.
        blob: all of it in SSH's encoding; two keys are the same if their blobs are.
    """

    kind: str
    blob: bytes
    _verify: _Verify = field(repr=False, eq=False)

    @classmethod
    def from_blob(cls, blob: bytes) -> PublicKey:
        """Return the key that is encoded in ``blob``.

        Raises:
            ValueError: it is none, or of a kind that does not count.
        """
        reader = _Reader(blob)
        kind = reader.word()
        load = _LOADERS.get(kind)
        if load is None:
            raise ValueError(f"keys of type {kind[:40]!a} are not taken, only {_KINDS}")
        verify = load(kind, reader)
        reader.end()
        return cls(kind, blob, verify)

    @classmethod
    def from_text(cls, kind: str, text: str) -> PublicKey:
        """Return the key of a ``.pub`` file's first two words.

        Raises:
            ValueError: as :meth:`from_blob`, or the words do not fit each other.
        """
        key = cls.from_blob(_base64(text.encode("ascii", "replace"), "the key"))
        if key.kind != kind:
            raise ValueError(f"the key is of type {key.kind}, not {kind[:40]!a}")
        return key

    @property
    def text(self) -> str:
        """The first two words of a ``.pub`` file."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """What ``ssh-keygen -l`` prints of it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"

    def signed(self, signature: bytes, text: bytes) -> bool:
        """Tell whether ``signature`` (SSH's encoding) over ``text`` is by this key."""
        reader = _Reader(signature)
        try:
            return self._verify(reader.word(), reader, text) and reader.at == len(signature)
        except ValueError:
            return False


def _load_ed25519(kind: str, reader: _Reader) -> _Verify:
    public = reader.string()
    if len(public) != 32:
        raise ValueError("the key does not have 32 bytes")

    def verify(signed_as: str, signature: _Reader, text: bytes) -> bool:
        return signed_as == kind and signature_ok(public, signature.string(), text)

    return verify


def _load_ecdsa(kind: str, reader: _Reader) -> _Verify:
    name = reader.word()
    if not kind.removesuffix("@openssh.com").endswith(name) or name not in _CURVES:
        raise ValueError("the key is on another curve than its type says")
    curve, algorithm = _CURVES[name]
    key = ec.EllipticCurvePublicKey.from_encoded_point(curve, reader.string())

    def verify(signed_as: str, signature: _Reader, text: bytes) -> bool:
        pair = _Reader(signature.string())
        der = encode_dss_signature(pair.mpint(), pair.mpint())
        pair.end()
        try:
            key.verify(der, text, ec.ECDSA(algorithm))
        except InvalidSignature:
            return False
        return signed_as == kind

    return verify


def _load_rsa(kind: str, reader: _Reader) -> _Verify:
    del kind
    exponent, modulus = reader.mpint(), reader.mpint()
    bits = modulus.bit_length()
    if not limits.SIGNER_RSA_BITS_MIN <= bits <= limits.SIGNER_RSA_BITS_MAX:
        allowed = f"{limits.SIGNER_RSA_BITS_MIN} to {limits.SIGNER_RSA_BITS_MAX}"
        raise ValueError(f"the RSA key has {bits} bits; {allowed} are taken")
    if exponent.bit_length() > _EXPONENT_BITS:
        raise ValueError("the RSA key has too large an exponent")
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()

    def verify(signed_as: str, signature: _Reader, text: bytes) -> bool:
        algorithm = _RSA_HASHES.get(signed_as)
        if algorithm is None:  # ssh-rsa means SHA-1
            return False
        # Some agents leave leading zeros out; OpenSSH takes these, too.
        padded = signature.string().rjust((bits + 7) // 8, b"\0")
        try:
            key.verify(padded, text, padding.PKCS1v15(), algorithm)
        except InvalidSignature:
            return False
        return True

    return verify


def _on_token(load: Callable[[str, _Reader], _Verify]) -> Callable[[str, _Reader], _Verify]:
    """Return the loader of keys that live in a FIDO token: those sign a text around the text."""

    def load_on_token(kind: str, reader: _Reader) -> _Verify:
        inner = load(kind, reader)
        application = hashlib.sha256(reader.string()).digest()

        def verify(signed_as: str, signature: _Reader, text: bytes) -> bool:
            blob = signature.string()
            flags_and_counter = signature.take(5)
            if not flags_and_counter[0] & _USER_PRESENT:
                return False
            around = application + flags_and_counter + hashlib.sha256(text).digest()
            inside = _Reader(_string(blob))
            return inner(signed_as, inside, around)

        return verify

    return load_on_token


_LOADERS: Final[dict[str, Callable[[str, _Reader], _Verify]]] = {
    "ssh-ed25519": _load_ed25519,
    "ecdsa-sha2-nistp256": _load_ecdsa,
    "ecdsa-sha2-nistp384": _load_ecdsa,
    "ecdsa-sha2-nistp521": _load_ecdsa,
    "ssh-rsa": _load_rsa,  # the key's type; its signatures are rsa-sha2-*
    "sk-ssh-ed25519@openssh.com": _on_token(_load_ed25519),
    "sk-ecdsa-sha2-nistp256@openssh.com": _on_token(_load_ecdsa),
}
KEY_TYPES: Final = frozenset(_LOADERS)
"""First words of the public keys that are taken."""
_KINDS: Final = "Ed25519, ECDSA and RSA ones, in software or on FIDO tokens"


# --- signatures ---


@frozen
class Signature:
    """One signature as its file says it; :meth:`covers` tells whether it is true.

    Attributes:
        key: who signed, so it says.
        namespace: what for, so it says.
        algorithm: ``sha512`` or ``sha256``, of the signed text.
        proof: the key's signature, in SSH's encoding.
    """

    key: PublicKey
    namespace: str
    algorithm: str
    proof: bytes

    def covers(self, text: bytes) -> bool:
        """Tell whether the key signed exactly these bytes, for this namespace."""
        return self.key.signed(self.proof, _to_sign(text, self.namespace, self.algorithm))

    def armored(self) -> bytes:
        """Return the text of a ``.sig`` file."""
        blob = (
            _MAGIC
            + _VERSION.to_bytes(4, "big")
            + _strings(
                self.key.blob,
                self.namespace.encode("ascii"),
                b"",
                self.algorithm.encode("ascii"),
                self.proof,
            )
        )
        digits = base64.b64encode(blob)
        lines = [digits[at : at + _LINE] for at in range(0, len(digits), _LINE)]
        return b"\n".join([_BEGIN, *lines, _END, b""])


def parse_signature(text: bytes) -> Signature:
    """Return what the text of a ``.sig`` file says. Proves nothing yet.

    Raises:
        ValueError: it is no signature, or of a kind that does not count; says why.
    """
    if len(text) > limits.SIGNATURE_BYTES:
        raise ValueError(f"it is larger than {limits.SIGNATURE_BYTES} bytes")
    lines = [line.rstrip(b"\r") for line in text.strip(b" \t\r\n").split(b"\n")]
    if lines[0] != _BEGIN or lines[-1] != _END:
        raise ValueError(f"it does not begin with {_BEGIN.decode()} and end accordingly")
    reader = _Reader(_base64(b"".join(lines[1:-1]), "it"))
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no SSH signature")
    version = reader.number()
    if version != _VERSION:
        raise ValueError(f"it has version {version}, only {_VERSION} is known")
    key = PublicKey.from_blob(reader.string())
    namespace = reader.word()
    if reader.string():
        raise ValueError("it holds something where nothing is defined")
    algorithm = reader.word()
    if algorithm not in _HASHES:
        raise ValueError(f"it hashes with {algorithm[:40]!a}, only SHA-512 and SHA-256 are taken")
    proof = reader.string()
    reader.end()
    return Signature(key, namespace, algorithm, proof)


def public_key_of(private: PrivateKey) -> PublicKey:
    """Return the public half.

    Raises:
        ValueError: it is of a kind or size that does not count.
    """
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return PublicKey.from_text(*line.split(" ")[:2])


def sign(private: PrivateKey, text: bytes, namespace: str = NAMESPACE) -> Signature:
    """Return what ``ssh-keygen -Y sign -n namespace`` would.

    Raises:
        ValueError: the key is of a kind or size that does not count.
    """
    key = public_key_of(private)
    subject = _to_sign(text, namespace, "sha512")
    if isinstance(private, ed25519.Ed25519PrivateKey):
        proof = _strings(key.kind.encode(), private.sign(subject))
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        _, algorithm = _CURVES[key.kind.rpartition("-")[2]]
        r, s = decode_dss_signature(private.sign(subject, ec.ECDSA(algorithm)))
        proof = _strings(key.kind.encode(), _mpint(r) + _mpint(s))
    else:
        signed = private.sign(subject, padding.PKCS1v15(), hashes.SHA512())
        proof = _strings(b"rsa-sha2-512", signed)
    return Signature(key, namespace, "sha512", proof)


def _to_sign(text: bytes, namespace: str, algorithm: str) -> bytes:
    """Return what a key signs for a text."""
    digest = _HASHES[algorithm](text).digest()
    words = (namespace.encode("ascii"), b"", algorithm.encode("ascii"))
    return _MAGIC + _strings(*words, digest)


def _base64(data: bytes, what: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{what} is not valid base64: it was cut or changed") from error
