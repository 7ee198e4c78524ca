"""The bytes of overlay messages. Sans-I/O.

Job: ``encode`` and ``decode``. It does NOT know what messages mean (``messages``).

A message is one msgpack array. Requests begin ``[code, rid, attempt, token, ...]``, replies
``[code, rid, attempt, ...]``; an offer is a notice and begins ``[code, qid, ...]``. ``rid`` (8
random bytes) matches a reply to its call; ``attempt`` (the number of the try, echoed) makes every
reply a clean RTT sample, so Karn's ambiguity never arises. Codes, fields and annotated examples:
``docs/protocol.md``.

Threat: anything. Sizes are checked before parsing, msgpack gets explicit limits, every field has
an exact type and range, and what does not fit raises :class:`RemoteProtocolError`, nothing else.
Tests: ``test_wire``.
"""

from __future__ import annotations

from typing import Any

import msgpack

from p2pdist import limits
from p2pdist.addresses import pack, unpack
from p2pdist.errors import LocalProtocolError, MalformedMessage, OversizedMessage
from p2pdist.overlay.fields import Padding
from p2pdist.overlay.messages import MESSAGES, GetPeers, Message, Offer, Ping, Pong


def encode(message: Message) -> bytes:
    """Return the payload of ``message``, padded where its kind says so.

    Raises:
        LocalProtocolError: it does not fit its bound.
    """
    if isinstance(message, Pong):
        grant = message.token + pack(message.observed)
        row = [message.code, message.rid, message.attempt, message.node_id, grant, message.flags]
        return msgpack.packb(row)  # type: ignore[no-any-return]
    row = [message.code]
    size = 0
    for name, kind in message.fields:
        if isinstance(kind, Padding):
            size = _padded_size(message) - limits.ENVELOPE_BYTES
        else:
            row.append(kind.put(getattr(message, name)))
    if size:
        bare = len(msgpack.packb(row)) + 2
        room = size - bare if size - bare < 256 else size - bare - 1
        if room < 0:
            raise LocalProtocolError(f"{type(message).__name__} does not fit {size} bytes")
        row.append(bytes(room))
    payload: bytes = msgpack.packb(row)
    top = limits.OFFER_BYTES if isinstance(message, Offer) else limits.DATAGRAM_BYTES
    if len(payload) + limits.ENVELOPE_BYTES > top:
        raise LocalProtocolError(f"{type(message).__name__} of {len(payload)} bytes")
    return payload


def _padded_size(message: Message) -> int:
    if isinstance(message, GetPeers):
        return limits.GET_PEERS_WIDE_BYTES if message.wide else limits.GET_PEERS_BYTES
    return limits.PING_BYTES


def decode(payload: bytes) -> Message:
    """Return the message in ``payload``.

    Raises:
        OversizedMessage: above ``limits.PAYLOAD_BYTES``, or an offer above its own bound.
        MalformedMessage: anything else that is not exactly a message.
    """
    if len(payload) > limits.PAYLOAD_BYTES:
        raise OversizedMessage("payload-size", str(len(payload)))
    try:
        row = msgpack.unpackb(
            payload,
            max_array_len=limits.MSGPACK_ARRAY,
            max_bin_len=limits.PAYLOAD_BYTES,
            max_str_len=0,
            max_map_len=0,
            max_ext_len=0,
            use_list=False,
        )
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        # msgpack's own exceptions are ValueErrors; so are bad UTF-8 and trailing bytes
        raise MalformedMessage("msgpack", type(error).__name__) from None
    if type(row) is not tuple or not row or type(row[0]) is not int:
        raise MalformedMessage("message-shape")
    kind = MESSAGES.get(row[0])
    if kind is None:
        raise MalformedMessage("message-code", str(row[0]))
    if len(row) != len(kind.fields) + 1:
        raise MalformedMessage("message-fields", kind.__name__)
    values = {name: codec.get(raw) for (name, codec), raw in zip(kind.fields, row[1:], strict=True)}
    return _finish(kind, values, len(payload) + limits.ENVELOPE_BYTES)


def _finish(kind: type[Message], values: dict[str, Any], size: int) -> Message:
    """Check what concerns a whole message, and make it."""
    values.pop("padding", None)
    if kind is Pong:
        grant = values.pop("grant")
        values["token"] = grant[: limits.TOKEN_BYTES]
        values["observed"] = unpack(grant[limits.TOKEN_BYTES :])
    elif kind is GetPeers:
        if size not in {limits.GET_PEERS_BYTES, limits.GET_PEERS_WIDE_BYTES}:
            raise MalformedMessage("get_peers-size", str(size))
        if values["units"] * limits.OFFER_BYTES > size:
            raise MalformedMessage("get_peers-units", str(values["units"]))
        values["wide"] = size == limits.GET_PEERS_WIDE_BYTES
    elif kind is Offer and size > limits.OFFER_BYTES:
        raise OversizedMessage("offer-size", str(size))
    elif kind is Ping and size != limits.PING_BYTES:
        raise MalformedMessage("ping-size", str(size))
    return kind(**values)
