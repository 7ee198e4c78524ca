"""TLS 1.3 without sockets: what a private connection is wrapped in. Sans-I/O.

OpenSSL does all of it; here stands how it is set up. One version, three suites, no tickets, no
resumption, no early data; on both sides a certificate that holds the node's Ed25519 key and says
nothing else: no name, no dates that mean anything, no authority. TLS proves that the other side has
the key it shows; whether it has the secret is ``binding``'s to say. A dialler shows its own
certificate only to the node it means to call.
Imported when the first private content or network turns up, since OpenSSL's bindings take time.
Threat: who sits in between; other versions and keys of other kinds; certificates that are traps.
What is wrong raises here, and the alert that OpenSSL would send is not sent.
Tests: ``test_tls``.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

from attrs import define
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from OpenSSL import SSL, crypto

from p2pdist import limits
from p2pdist.errors import AuthenticationFailed, MalformedMessage
from p2pdist.ids import NodeID
from p2pdist.keys import NodeKey, node_id_of, weak_key
from p2pdist.swarm.binding import Secured

_EXPORTER: Final = b"EXPORTER-Channel-Binding"
"""RFC 9266: "tls-exporter", 32 bytes, no context."""
_RETRY: Final = hashlib.sha256(b"HelloRetryRequest").digest()
"""The random of a ServerHello that asks for another ClientHello (RFC 8446, 4.1.3)."""
_SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""The first one is what both sides of ours take; it is faster than the second."""
_PARTIAL_WRITE: Final = 1
"""SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets: each call would write one record only."""
_NO_BEGIN, _NO_END = datetime(1970, 1, 1), datetime(9999, 12, 31)  # noqa: DTZ001 -- never looked at


@define(eq=False)
class _Meeting:
    """Whom a connection may be with, and who it turned out to be with."""

    expected: NodeID | None
    key: bytes | None = None


class Credentials:
    """What a node shows in TLS, ready for both roles.

    Args:
        node_key: its key.
    """

    def __init__(self, node_key: NodeKey) -> None:
        self._node_key = node_key
        name = x509.Name([])
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(node_key.private.public_key())
            .serial_number(1)
            .not_valid_before(_NO_BEGIN)
            .not_valid_after(_NO_END)
            .sign(node_key.private, None)
        )
        self._context = self._make_context()

    def _make_context(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(_SUITES)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.clear_mode(_PARTIAL_WRITE)
        context.use_privatekey(self._node_key.private)
        context.use_certificate(self._certificate)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return context

    def _verify(
        self, connection: SSL.Connection, shown: crypto.X509, _error: int, depth: int, _ok: int
    ) -> bool:
        """Take a certificate of an Ed25519 key, if it is the one we expect; nothing else counts."""
        meeting = connection.get_app_data()
        try:
            key = shown.to_cryptography().public_key()
        except (ValueError, UnsupportedAlgorithm):
            return False
        if depth or not isinstance(key, Ed25519PublicKey):
            return False
        public = key.public_bytes_raw()
        if public == self._node_key.public or weak_key(public):
            return False
        if meeting.expected is not None and node_id_of(public) != meeting.expected:
            return False
        meeting.key = public
        return True

    def dial(self, callee: NodeID) -> Channel:
        """Return the channel of a connection we open, to this node and no other."""
        connection = SSL.Connection(self._context)
        connection.set_connect_state()
        return Channel(connection, _Meeting(callee), self._node_key.public, outgoing=True)

    def accept(self) -> Channel:
        """Return the channel of a connection somebody opened."""
        connection = SSL.Connection(self._context)
        connection.set_accept_state()
        return Channel(connection, _Meeting(None), self._node_key.public, outgoing=False)


class Channel:
    """One side of one TLS connection: bytes of the socket in and out, plain bytes in and out.

    Attributes:
        open: whether the handshake is over.
    """

    def __init__(
        self, connection: SSL.Connection, meeting: _Meeting, own_key: bytes, *, outgoing: bool
    ) -> None:
        connection.set_app_data(meeting)
        self.open = False
        self._connection = connection
        self._meeting = meeting
        self._own_key = own_key
        self._outgoing = outgoing
        self._taken = 0

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket.

        Raises:
            MalformedMessage: more than a handshake has.
        """
        if not self.open:
            self._taken += len(data)
            if self._taken > limits.TLS_HANDSHAKE_BYTES:
                raise MalformedMessage("tls-handshake-size", str(self._taken))
        if data:
            self._connection.bio_write(data)

    def shake(self) -> Secured | None:
        """Go on with the handshake; return what it settled once it is over.

        Raises:
            AuthenticationFailed: it failed; nothing of :meth:`outgoing` may be sent any more.
        """
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return None
        except (SSL.Error, ValueError) as error:
            raise AuthenticationFailed("tls-handshake", _text(error)) from None
        exported = self._connection.export_keying_material(_EXPORTER, 32)
        assert self._meeting.key is not None, "TLS asked for a certificate"
        self.open = True
        dialler, acceptor = self._own_key, self._meeting.key
        if not self._outgoing:
            dialler, acceptor = acceptor, dialler
        return Secured(dialler, acceptor, exported)

    def read(self) -> bytes:
        """Return some plain bytes; none if more must come first.

        Raises:
            MalformedMessage: the other side broke TLS, or ended it.
        """
        try:
            return self._connection.recv(limits.TLS_RECORD_BYTES)
        except SSL.WantReadError:
            return b""
        except SSL.Error as error:
            raise MalformedMessage("tls-record", _text(error)) from None

    def read_into(self, place: memoryview) -> int:
        """Put some plain bytes into ``place`` and return how many; see :meth:`read`.

        Raises:
            MalformedMessage: likewise.
        """
        try:
            return self._connection.recv_into(place[: limits.TLS_RECORD_BYTES])
        except SSL.WantReadError:
            return 0
        except SSL.Error as error:
            raise MalformedMessage("tls-record", _text(error)) from None

    def write(self, data: bytes | memoryview) -> None:
        """Take plain bytes, at least one."""
        self._connection.sendall(data)

    def outgoing(self, size: int) -> bytes:
        """Return bytes for the socket, at most ``size`` of them; none when there are no more.

        Raises:
            AuthenticationFailed: they would ask for a second ClientHello, which no knock covers.
        """
        try:
            data = self._connection.bio_read(size)
        except SSL.WantReadError:
            return b""
        if not self.open and _RETRY in data:
            raise AuthenticationFailed("tls-retry")
        return data


def _text(error: Exception) -> str:
    """Say in a few words what OpenSSL did not like."""
    return f"{type(error).__name__} {error}"[:100]
