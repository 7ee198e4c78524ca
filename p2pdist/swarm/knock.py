"""The first bytes of a private connection: who cannot make them gets no answer. Sans-I/O.

::

    knock   nonce 16 | mac 16        and at once, as one TLS record, the ClientHello
    mac   = HMAC-SHA256(knock_key, "p2pdist/1 knock" | nonce | callee's node id | record)[:16]

A TLS server introduces itself to everybody. Here it knows beforehand that the caller has the
network's secret and means this node; and since the ClientHello, with its key share, is under the
mac, nobody else can take the caller's place: who sends recorded bytes again, to this node or
another, cannot read the answer. A flood of strangers costs one mac each, if it looks like a knock
at all. Does NOT prove who calls, nor what for: TLS does, and ``binding`` inside it.
Threat: strangers, who must not learn that there is a private network, or who is in it.
Tests: ``test_knock``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from attrs import define, field

from p2pdist import limits
from p2pdist.errors import AuthenticationFailed, MalformedMessage
from p2pdist.ids import NodeID
from p2pdist.keys import NetworkKeys, equal, mac
from p2pdist.swarm.peerwire import PREFACE

KNOCK_BYTES: Final = 32
_NONCE_BYTES: Final = 16
_CONTEXT: Final = b"p2pdist/1 knock"
_RECORD_HEAD: Final = 5


def is_public(data: bytes | bytearray) -> bool:
    """Tell from its first byte whether a connection is public; no knock begins like a preface."""
    return data[0] == PREFACE[0]


def knock(
    keys: NetworkKeys, callee: NodeID, entropy: Callable[[int], bytes], client_hello: bytes
) -> bytes:
    """Return what goes before ``client_hello`` to the node ``callee`` (32 bytes)."""
    nonce = entropy(_NONCE_BYTES)
    if is_public(nonce):
        nonce = bytes([nonce[0] ^ 0x80]) + nonce[1:]
    return nonce + _mac(keys.knock_key(), nonce, callee, client_hello)


def _mac(key: bytes, nonce: bytes, callee: NodeID, record: bytes) -> bytes:
    return mac(key, _CONTEXT, nonce, callee, record)[: KNOCK_BYTES - _NONCE_BYTES]


def knock_size(data: bytes | bytearray) -> int | None:
    """Return the size of the knock and ClientHello that ``data`` begins with.

    Returns:
        ``None`` while more bytes must come.

    Raises:
        MalformedMessage: it is neither, or too long.
    """
    head = data[KNOCK_BYTES : KNOCK_BYTES + _RECORD_HEAD]
    if head[:2] not in (b"\x16\x03"[: len(head)], b""):
        raise MalformedMessage("knock", "no TLS record")
    if len(head) < _RECORD_HEAD:
        return None
    record = _RECORD_HEAD + int.from_bytes(head[3:], "big")
    if record > limits.CLIENT_HELLO_BYTES:
        raise MalformedMessage("knock", f"record of {record} bytes")
    size = KNOCK_BYTES + record
    return size if len(data) >= size else None


@define
class Doorkeeper:
    """Checks knocks; each passes once.

    Args:
        node_id: our own.
    """

    node_id: NodeID
    _seen: OrderedDict[bytes, None] = field(factory=OrderedDict, init=False)

    def check(self, knocked: bytes, networks: Iterable[NetworkKeys]) -> NetworkKeys:
        """Return the network whose secret a whole knock with its ClientHello shows.

        Raises:
            AuthenticationFailed: none of them, or it was heard before.
        """
        nonce, proof = knocked[:_NONCE_BYTES], knocked[_NONCE_BYTES:KNOCK_BYTES]
        for keys in networks:
            if equal(proof, _mac(keys.knock_key(), nonce, self.node_id, knocked[KNOCK_BYTES:])):
                if nonce in self._seen:
                    raise AuthenticationFailed("knock-replayed")
                self._seen[nonce] = None
                if len(self._seen) > limits.KNOCKS:
                    self._seen.popitem(last=False)
                return keys
        raise AuthenticationFailed("knock")
