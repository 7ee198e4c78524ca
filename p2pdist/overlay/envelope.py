"""The sealed datagram: every overlay message travels in one. Sans-I/O.

Job: seal and open; say which network a datagram belongs to. It does NOT look inside the payload.

Layout, 46 bytes around the payload (all big-endian)::

    D1 | version 01 | tag 4 | boot_id 16 | counter 8 | AES-256-GCM(payload) with its 16-byte tag
    nonce = 00000000 || counter, associated data = the 30 header bytes

The key is derived per sender from the network's secret and the sender's boot id, so a (key, nonce)
pair is never used twice and nothing need be stored. The public network's secret is published:
there the seal only keeps corrupted and foreign datagrams away from the parser.

A *notice* is a header alone with version 00: "I do not serve the network of this datagram of
yours". It is smaller than anything that can cause it and lets a node tell its operator
"wrong network" instead of "no answer".

Threat: forged, replayed, corrupted and foreign datagrams at line rate. Tests: ``test_envelope``.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from attrs import define, field
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from p2pdist import limits
from p2pdist.errors import AuthenticationFailed, MalformedMessage, OversizedMessage
from p2pdist.keys import NetworkKeys

MAGIC = 0xD1
VERSION = 1
NOTICE = 0
_HEADER = struct.Struct(">BB4s16sQ")
HEADER_BYTES = _HEADER.size
BOOT_ID_BYTES = 16
_COUNTER = slice(HEADER_BYTES - 8, HEADER_BYTES)
_NONCE_HEAD = bytes(4)


class Header(NamedTuple):
    """What stands in the clear.

    Attributes:
        magic: :data:`MAGIC`.
        version: :data:`VERSION`, or :data:`NOTICE`.
        tag: the network.
        boot_id: the sending process.
        counter: its datagram number in this network.
    """

    magic: int
    version: int
    tag: bytes
    boot_id: bytes
    counter: int


def read_header(datagram: bytes) -> Header:
    """Read the header of a datagram from outside.

    Raises:
        OversizedMessage: above ``limits.DATAGRAM_BYTES``.
        MalformedMessage: too short, other magic or version.
    """
    size = len(datagram)
    if size > limits.DATAGRAM_BYTES:
        raise OversizedMessage("datagram-size", str(size))
    if size < HEADER_BYTES:
        raise MalformedMessage("datagram-short")
    header = Header._make(_HEADER.unpack_from(datagram))
    if header.magic != MAGIC:
        raise MalformedMessage("datagram-magic")
    if header.version == VERSION and size > limits.ENVELOPE_BYTES:
        return header
    if header.version == NOTICE and size == HEADER_BYTES:
        return header
    raise MalformedMessage("datagram-version")


def notice(header: Header) -> bytes:
    """Return the notice that answers a datagram of a network we do not serve: 30 bytes."""
    return _HEADER.pack(MAGIC, NOTICE, header.tag, header.boot_id, header.counter)


@define
class Taken:
    """Which datagrams of one boot id were taken: their counters, in order, so nothing is guessed.

    Two bytes each, and not a bit for each that might come: a sender counts what it sends to
    everybody, of which one receiver sees little.
    """

    _counters: array[int] = field(init=False, factory=lambda: array("H"))

    def __contains__(self, counter: int) -> bool:
        index = bisect_left(self._counters, counter)
        return index < len(self._counters) and self._counters[index] == counter

    def add(self, counter: int) -> None:
        """Remember ``counter``, below 2^16; only after its datagram was authenticated."""
        if not self._counters or counter > self._counters[-1]:
            self._counters.append(counter)
        elif counter not in self:
            insort(self._counters, counter)

    def __len__(self) -> int:
        return len(self._counters)


@define
class Envelope:
    """Seals as one process in one network, and opens what the network's other processes sealed.

    Args:
        keys: of the network.
        entropy: returns that many unpredictable bytes.
    """

    keys: NetworkKeys
    entropy: Callable[[int], bytes]
    boot_id: bytes = field(init=False)
    _cipher: AESGCM = field(init=False)
    _header: bytes = field(init=False)
    _counter: int = field(init=False, default=0)
    _ciphers: OrderedDict[bytes, AESGCM] = field(init=False, factory=OrderedDict)
    _taken: OrderedDict[bytes, Taken] = field(init=False, factory=OrderedDict)
    """By sender, the longest unused first; only in private networks."""
    _remembered: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take a new boot id: at start, after 2^16 datagrams, and when the clock jumped."""
        self.boot_id = self.entropy(BOOT_ID_BYTES)
        self._cipher = AESGCM(self.keys.sender_key(self.boot_id))
        self._header = _HEADER.pack(MAGIC, VERSION, self.keys.tag, self.boot_id, 0)[:-8]
        self._counter = 0

    def seal(self, payload: bytes) -> bytes:
        """Return the datagram for ``payload`` (at most ``limits.PAYLOAD_BYTES``)."""
        assert len(payload) <= limits.PAYLOAD_BYTES, len(payload)
        if self._counter >= limits.COUNTER_MAX:
            self.renew()
        counter = self._counter.to_bytes(8, "big")
        self._counter += 1
        header = self._header + counter
        return header + self._cipher.encrypt(_NONCE_HEAD + counter, payload, header)

    def sent(self, header: Header) -> bool:
        """Tell whether ``header`` is one this process sealed under its present boot id."""
        return header.boot_id == self.boot_id and header.counter < self._counter

    def open(self, datagram: bytes, header: Header) -> bytes:
        """Return the payload of ``datagram``.

        Args:
            datagram: as received, of this network.
            header: what :func:`read_header` made of it.

        Raises:
            AuthenticationFailed: forged or corrupted, our own, or (private networks) replayed.
        """
        boot_id = header.boot_id
        if boot_id == self.boot_id:
            raise AuthenticationFailed("own-datagram")
        cipher = self._ciphers.get(boot_id)
        known = cipher is not None
        if cipher is None:
            cipher = AESGCM(self.keys.sender_key(boot_id))
        if self.keys.private:
            payload = self._open_once(datagram, cipher, header)
        else:
            payload = _decrypt(datagram, cipher)
        if known:
            self._ciphers.move_to_end(boot_id)
        else:
            self._ciphers[boot_id] = cipher
            if len(self._ciphers) > limits.ENVELOPE_CIPHERS:
                self._ciphers.popitem(last=False)
        return payload

    def _open_once(self, datagram: bytes, cipher: AESGCM, header: Header) -> bytes:
        """Open a datagram of a private network, which passes one time only (decision 6).

        The source does not count: who replays from another address would be answered there.
        """
        if header.counter >= limits.COUNTER_MAX:
            raise AuthenticationFailed("counter-range")
        taken = self._taken.get(header.boot_id)
        if taken is not None and header.counter in taken:
            raise AuthenticationFailed("replayed")
        payload = _decrypt(datagram, cipher)
        if taken is None:
            taken = self._taken[header.boot_id] = Taken()
            if len(self._taken) > limits.ENVELOPE_SENDERS:
                self._forget_oldest()
        else:
            self._taken.move_to_end(header.boot_id)
        taken.add(header.counter)
        self._remembered += 1
        while self._remembered > limits.ENVELOPE_TAKEN and len(self._taken) > 1:
            self._forget_oldest()
        return payload

    def _forget_oldest(self) -> None:
        _, forgotten = self._taken.popitem(last=False)
        self._remembered -= len(forgotten)

    def open_own(self, datagram: bytes) -> bytes:
        """Return the payload of a datagram this process sealed, which came back to it.

        Raises:
            AuthenticationFailed: it did not.
        """
        return _decrypt(datagram, self._cipher)

    @property
    def senders(self) -> int:
        """How many senders' datagrams are remembered."""
        return len(self._taken)

    @property
    def remembered(self) -> int:
        """How many datagrams that is."""
        return self._remembered


def _decrypt(datagram: bytes, cipher: AESGCM) -> bytes:
    try:
        return cipher.decrypt(
            _NONCE_HEAD + datagram[_COUNTER], datagram[HEADER_BYTES:], datagram[:HEADER_BYTES]
        )
    except InvalidTag:
        raise AuthenticationFailed("seal") from None
