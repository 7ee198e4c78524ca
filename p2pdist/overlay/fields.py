"""Field kinds: each packs one Python value into one msgpack value and checks it back.

Job: exact types, sizes and ranges of single fields. It does NOT know messages; ``wire`` lists which
message has which fields. Every ``get`` raises :class:`MalformedMessage` or returns a value.
Tests: ``test_wire``.
"""

from __future__ import annotations

import enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define

from p2pdist import limits
from p2pdist.addresses import Address, pack, unpack, unpack_list
from p2pdist.errors import MalformedMessage
from p2pdist.ids import ID_BYTES, NodeID

if TYPE_CHECKING:
    from attrs import frozen as frozen  # noqa: PLC0414 -- messages are frozen in the same way
else:
    # Frozen to the type checker. attrs' way of refusing assignment doubles the time it takes to
    # construct a value, and there is one for every datagram and every node in it.
    frozen = partial(define, unsafe_hash=True)


@frozen
class NodeEntry:
    """A node as told to others.

    Attributes:
        node_id: 20 bytes.
        address: where it was verified.
    """

    node_id: NodeID
    address: Address


class Kind:
    """One field on the wire.

    Attributes:
        fits: text of an expression, true of a value that :meth:`get` returns as it is, or nothing.
    """

    fits = ""

    def put(self, value: Any) -> Any:
        """Return what msgpack packs."""
        return value

    def get(self, raw: Any) -> Any:
        """Return the checked value of what msgpack unpacked."""
        raise NotImplementedError


class Fixed(Kind):
    """Binary of one of the given sizes."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.fits = f"type({{0}}) is bytes and len({{0}}) in {sizes}"
        if len(sizes) == 1:
            self.fits = f"type({{0}}) is bytes and len({{0}}) == {sizes[0]}"

    def get(self, raw: Any) -> bytes:
        """See :class:`Kind`."""
        if type(raw) is not bytes or len(raw) not in self.sizes:
            raise MalformedMessage("field-binary")
        return raw


class UInt(Kind):
    """Integer from 0 to ``top``."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.fits = f"type({{0}}) is int and 0 <= {{0}} <= {top}"

    def get(self, raw: Any) -> int:
        """See :class:`Kind`."""
        if type(raw) is not int or not 0 <= raw <= self.top:
            raise MalformedMessage("field-integer")
        return raw


class Member(Kind):
    """Integer that names a member of an enumeration."""

    def __init__(self, kind: type[enum.IntEnum]) -> None:
        self.members = {member.value: member for member in kind}

    def put(self, value: Any) -> int:
        """See :class:`Kind`."""
        return int(value)

    def get(self, raw: Any) -> enum.IntEnum:
        """See :class:`Kind`."""
        if type(raw) is not int or raw not in self.members:
            raise MalformedMessage("field-enumeration")
        return self.members[raw]


class MaybeAddress(Kind):
    """Empty binary for none, else 6 or 18 bytes."""

    def put(self, value: Address | None) -> bytes:
        """See :class:`Kind`."""
        return b"" if value is None else pack(value)

    def get(self, raw: Any) -> Address | None:
        """See :class:`Kind`."""
        if type(raw) is not bytes:
            raise MalformedMessage("field-address")
        return unpack(raw) if raw else None


class Addresses(Kind):
    """Packed addresses of one family, at most ``top``."""

    def __init__(self, size: int, top: int) -> None:
        self.size = size
        self.top = top

    def put(self, value: tuple[Address, ...]) -> bytes:
        """See :class:`Kind`."""
        return b"".join(pack(address) for address in value)

    def get(self, raw: Any) -> tuple[Address, ...]:
        """See :class:`Kind`."""
        if type(raw) is not bytes or len(raw) > self.size * self.top:
            raise MalformedMessage("field-addresses")
        return unpack_list(raw, self.size)


class Nodes(Kind):
    """Packed (node id, address) pairs of one family."""

    def __init__(self, size: int) -> None:
        self.size = ID_BYTES + size

    def put(self, value: tuple[NodeEntry, ...]) -> bytes:
        """See :class:`Kind`."""
        return b"".join(entry.node_id + pack(entry.address) for entry in value)

    def get(self, raw: Any) -> tuple[NodeEntry, ...]:
        """See :class:`Kind`."""
        step = self.size
        if type(raw) is not bytes or len(raw) % step or len(raw) > step * limits.REPLY_NODES:
            raise MalformedMessage("field-nodes")
        return tuple(
            NodeEntry(NodeID(raw[i : i + ID_BYTES]), unpack(raw[i + ID_BYTES : i + step]))
            for i in range(0, len(raw), step)
        )


class Prefixes(Kind):
    """Byte strings of one size, laid end to end, at most ``top``."""

    def __init__(self, size: int, top: int) -> None:
        self.size = size
        self.top = top

    def put(self, value: tuple[bytes, ...]) -> bytes:
        """See :class:`Kind`."""
        return b"".join(value)

    def get(self, raw: Any) -> tuple[bytes, ...]:
        """See :class:`Kind`."""
        if type(raw) is not bytes or len(raw) % self.size or len(raw) > self.size * self.top:
            raise MalformedMessage("field-prefixes")
        return tuple(raw[i : i + self.size] for i in range(0, len(raw), self.size))


class Padding(Kind):
    """Zero bytes that bring the datagram to its size."""

    def get(self, raw: Any) -> None:
        """See :class:`Kind`."""
        if type(raw) is not bytes or raw != bytes(len(raw)):
            raise MalformedMessage("field-padding")
