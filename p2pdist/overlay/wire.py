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

from collections.abc import Callable
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

import msgpack
from attrs import frozen

from p2pdist import limits
from p2pdist.addresses import unpack
from p2pdist.errors import LocalProtocolError, MalformedMessage, OversizedMessage
from p2pdist.overlay.fields import Kind, Padding
from p2pdist.overlay.messages import MESSAGES, GetPeers, Message, Offer, Ping, Pong

_pack: Callable[[list[Any]], bytes] = msgpack.Packer().pack
"""Making a packer takes longer than packing; this one keeps nothing of what it could not pack."""
_unpack = partial(
    msgpack.unpackb,
    max_array_len=limits.MSGPACK_ARRAY,
    max_bin_len=limits.PAYLOAD_BYTES,
    max_str_len=0,
    max_map_len=0,
    max_ext_len=0,
    use_list=False,
)
_EMPTY_BINARY = b"\xc4\x00"
Read = Callable[[tuple[Any, ...], int], Message]
"""Takes a row and the size of its datagram; raises MalformedMessage or OversizedMessage."""


# --- what concerns a whole message: its datagram's size, and fields that are not its attributes ---


def _make_pong(_size: int, *, grant: bytes, **values: Any) -> Pong:
    token, observed = grant[: limits.TOKEN_BYTES], unpack(grant[limits.TOKEN_BYTES :])
    return Pong(token=token, observed=observed, **values)


def _make_ping(size: int, *, padding: None, **values: Any) -> Ping:
    del padding
    if size != limits.PING_BYTES:
        raise MalformedMessage("ping-size", str(size))
    return Ping(**values)


def _make_get_peers(size: int, *, padding: None, units: int, **values: Any) -> GetPeers:
    del padding
    if size not in {limits.GET_PEERS_BYTES, limits.GET_PEERS_WIDE_BYTES}:
        raise MalformedMessage("get_peers-size", str(size))
    if units * limits.OFFER_BYTES > size:
        raise MalformedMessage("get_peers-units", str(units))
    return GetPeers(units=units, wide=size == limits.GET_PEERS_WIDE_BYTES, **values)


def _make_offer(size: int, **values: Any) -> Offer:
    if size > limits.OFFER_BYTES:
        raise OversizedMessage("offer-size", str(size))
    return Offer(**values)


_MAKE: dict[type[Message], Callable[..., Message]] = {
    Pong: _make_pong,
    Ping: _make_ping,
    GetPeers: _make_get_peers,
    Offer: _make_offer,
}


def _reader(kind: type[Message]) -> Read:
    """Return what checks the fields of a row and makes a message of ``kind``.

    It is made from text, as attrs makes ``__init__``: to call something for each field would take
    twice as long, and every datagram from anybody comes through here.
    """
    make = _MAKE.get(kind)
    names = [name for name, _ in kind.fields]
    lines = ["def read(row, size):", f"    _, {', '.join(names)}, = row"]
    scope: dict[str, Any] = {"make": make or kind}
    for name, codec in kind.fields:
        scope[f"get_{name}"] = codec.get
        unless = f"if not ({codec.fits.format(name)}): " if codec.fits else ""
        lines.append(f"    {unless}{name} = get_{name}({name})")
    given = ", ".join(f"{name}={name}" for name in names)
    lines.append(f"    return make({'size, ' if make else ''}{given})")
    exec("\n".join(lines), scope)  # noqa: S102 -- nothing in it comes from outside
    read: Read = scope["read"]
    return read


@frozen
class _Layout:
    """What every message of one kind has in common, found out once and not for each datagram.

    Attributes:
        kind: the class.
        values: returns the code and the fields of a message; for padding, no bytes.
        puts: which elements of that msgpack cannot pack as they are, and what turns them.
        length: of the row.
        read: checks the fields of a row and returns the message.
        top: the largest datagram, envelope included.
        padded: whether the last field is padding.
    """

    kind: type[Message]
    values: Callable[[Message], tuple[Any, ...]]
    puts: tuple[tuple[int, Callable[[Any], Any]], ...]
    length: int
    read: Read
    top: int
    padded: bool

    @classmethod
    def of(cls, kind: type[Message]) -> _Layout:
        """Find it out."""
        sent = [(name, codec) for name, codec in kind.fields if not isinstance(codec, Padding)]
        return cls(
            kind=kind,
            values=attrgetter("code", *(name for name, _ in sent)),
            puts=tuple(
                (index, codec.put)
                for index, (_, codec) in enumerate(sent, 1)
                if type(codec).put is not Kind.put
            ),
            length=1 + len(kind.fields),
            read=_reader(kind),
            top=limits.OFFER_BYTES if kind is Offer else limits.DATAGRAM_BYTES,
            padded=len(sent) < len(kind.fields),
        )


_LAYOUTS = {kind: _Layout.of(kind) for kind in MESSAGES.values()}
_BY_CODE = {kind.code: layout for kind, layout in _LAYOUTS.items()}


def encode(message: Message) -> bytes:
    """Return the payload of ``message``, padded where its kind says so.

    Raises:
        LocalProtocolError: it does not fit its bound.
    """
    layout = _LAYOUTS[type(message)]
    row = [*layout.values(message)]
    for index, put in layout.puts:
        row[index] = put(row[index])
    if layout.padded:
        row.append(b"")
        return _padded(_pack(row), message)
    payload = _pack(row)
    if len(payload) + limits.ENVELOPE_BYTES > layout.top:
        raise LocalProtocolError(f"{type(message).__name__} of {len(payload)} bytes")
    return payload


def _padded(bare: bytes, message: Message) -> bytes:
    """Return the packed row ``bare`` with zeros in its last element, which is empty so far."""
    size = limits.PING_BYTES
    if isinstance(message, GetPeers):
        size = limits.GET_PEERS_WIDE_BYTES if message.wide else limits.GET_PEERS_BYTES
    assert bare.endswith(_EMPTY_BINARY), message
    room = size - limits.ENVELOPE_BYTES - len(bare)
    if room < 0:
        raise LocalProtocolError(f"{type(message).__name__} does not fit {size} bytes")
    return bare[:-2] + _zeros(room)


@lru_cache(maxsize=64)  # addresses and numbers have a few lengths
def _zeros(room: int) -> bytes:
    """Return packed binary zeros, ``room`` bytes longer than packed empty binary."""
    if room < 256:
        return b"\xc4" + room.to_bytes(1, "big") + bytes(room)
    return b"\xc5" + (room - 1).to_bytes(2, "big") + bytes(room - 1)


def decode(payload: bytes) -> Message:
    """Return the message in ``payload``.

    Raises:
        OversizedMessage: above ``limits.PAYLOAD_BYTES``, or an offer above its own bound.
        MalformedMessage: anything else that is not exactly a message.
    """
    size = len(payload)
    if size > limits.PAYLOAD_BYTES:
        raise OversizedMessage("payload-size", str(size))
    try:
        row = _unpack(payload)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        # msgpack's own exceptions are ValueErrors; so are bad UTF-8 and trailing bytes
        raise MalformedMessage("msgpack", type(error).__name__) from None
    if type(row) is not tuple or not row or type(row[0]) is not int:
        raise MalformedMessage("message-shape")
    layout = _BY_CODE.get(row[0])
    if layout is None:
        raise MalformedMessage("message-code", str(row[0]))
    if len(row) != layout.length:
        raise MalformedMessage("message-fields", layout.kind.__name__)
    return layout.read(row, size + limits.ENVELOPE_BYTES)
