"""Hypothesis strategies, one small function per value of the domain, composed from each other.

Job: say what the outside world may send, from well-formed to hostile. Tests: ``test_strategies``
checks that what is called usable is; the rest is tested by those who use it.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import msgpack
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from p2pdist import addresses as p2p_addresses
from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.content import HASH_BYTES, FileEntry, Metadata, check_component, piece_count
from p2pdist.descriptor import Descriptor
from p2pdist.errors import UnsafeName
from p2pdist.ids import HASH_KEY_BYTES, ID_BYTES, HashKey, NodeID, PieceIndex, Topic
from p2pdist.keys import PROOF_BYTES
from p2pdist.overlay import messages as said
from p2pdist.overlay.fields import NodeEntry
from p2pdist.swarm import messages

# --- words ---


def ports() -> SearchStrategy[int]:
    """Port numbers, 1 to 65535."""
    return st.integers(1, 65535)


def ip4_addresses() -> SearchStrategy[Address]:
    """Usable IPv4 addresses of every scope."""
    return _addresses(st.ip_addresses(v=4))


def ip6_addresses() -> SearchStrategy[Address]:
    """Usable IPv6 addresses of every scope."""
    return _addresses(st.ip_addresses(v=6))


def addresses() -> SearchStrategy[Address]:
    """Usable addresses of both families."""
    return ip4_addresses() | ip6_addresses()


def _addresses(
    ips: SearchStrategy[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> SearchStrategy[Address]:
    made = st.builds(Address, ips.map(str), ports())
    return made.filter(p2p_addresses.usable)


def node_ids() -> SearchStrategy[NodeID]:
    """Any node id."""
    return st.binary(min_size=ID_BYTES, max_size=ID_BYTES).map(NodeID)


def topics() -> SearchStrategy[Topic]:
    """Any topic."""
    return st.binary(min_size=ID_BYTES, max_size=ID_BYTES).map(Topic)


def hash_keys() -> SearchStrategy[HashKey]:
    """Any hash key."""
    return st.binary(min_size=HASH_KEY_BYTES, max_size=HASH_KEY_BYTES).map(HashKey)


def host_ports() -> SearchStrategy[HostPort]:
    """What a user writes to name a node: addresses and host names."""
    names = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9](\.[a-z]{2,6}){0,2}", fullmatch=True)
    return addresses().map(lambda address: HostPort(*address)) | st.builds(HostPort, names, ports())


# --- overlay ---


def node_entries(ips: SearchStrategy[Address]) -> SearchStrategy[NodeEntry]:
    """Nodes as told to others."""
    return st.builds(NodeEntry, node_ids(), ips)


def overlay_messages() -> SearchStrategy[said.Message]:
    """Every message of the overlay that a node may send."""
    return overlay_requests() | overlay_replies() | st.one_of(_offers(), _hails())


def overlay_requests() -> SearchStrategy[said.Message]:
    """Every request, as RPC sends it."""
    head: dict[str, SearchStrategy[Any]] = {
        "rid": _bytes(said.RID_BYTES),
        "attempt": st.integers(0, 127),
        "token": _bytes(limits.TOKEN_BYTES),
        "node_id": node_ids(),
    }
    flags = st.integers(0, 127)
    told = {"status": st.sampled_from(said.Status), "sequence": st.integers(0, 2**32 - 1)}
    maybe = st.none() | addresses()
    walk = {
        "qid": _bytes(said.QID_BYTES),
        "topic": topics(),
        "src": maybe,
        "via": maybe,
        "hops": st.integers(0, limits.HOPS),
        "flags": flags,
    }
    cookies = _bytes(0) | _bytes(limits.COOKIE_BYTES)
    narrow, wide = limits.GET_PEERS_UNITS, limits.GET_PEERS_WIDE_UNITS
    return st.one_of(
        st.builds(said.Ping, **head, flags=flags),
        st.builds(said.Find, **head, target=_bytes(ID_BYTES)),
        st.builds(said.GetPeers, **head, **walk, units=st.integers(0, narrow)),
        st.builds(said.GetPeers, **head, **walk, units=st.integers(0, wide), wide=st.just(True)),
        st.builds(said.Accept, **head, **told, qid=walk["qid"], cookie=cookies, topic=topics()),
        st.builds(said.Announce, **head, **told, topic=topics()),
        st.builds(said.StatusUpdate, **head, **told, topic=topics()),
        st.builds(said.Join, **head, topic=topics(), proof=_bytes(PROOF_BYTES)),
    )


def overlay_replies() -> SearchStrategy[said.Message]:
    """Every reply."""
    head = {"rid": _bytes(said.RID_BYTES), "attempt": st.integers(0, 127)}
    token = {"token": _bytes(limits.TOKEN_BYTES)}
    nodes = {
        "nodes4": _tuples(node_entries(ip4_addresses()), limits.REPLY_NODES),
        "nodes6": _tuples(node_entries(ip6_addresses()), limits.REPLY_NODES),
    }
    peers4 = {"peers4": _tuples(ip4_addresses(), limits.REPLY_PEERS_V4)}
    peers6 = {"peers6": _tuples(ip6_addresses(), limits.REPLY_PEERS_V6)}
    far = {"nodes4": nodes["nodes4"]}
    near = {"nodes6": _tuples(node_entries(ip6_addresses()), 4)}
    status = st.sampled_from(said.Status)
    units = st.integers(0, limits.GET_PEERS_WIDE_UNITS)
    others = st.integers(0, 2**16 - 1)
    return st.one_of(
        *(st.builds(said.Challenge, **head, **token), st.builds(said.Noted, **head)),
        st.builds(said.Error, **head, error=st.integers(0, 255)),
        st.builds(said.Found, **head, **nodes),
        st.builds(
            said.Pong,
            **head,
            **token,
            node_id=node_ids(),
            observed=addresses(),
            flags=st.integers(0, 127),
        ),
        st.builds(
            said.Forwarded, **head, **token, verdict=st.sampled_from(said.Verdict), units=units
        ),
        st.builds(said.Accepted, **head, **token, **peers4, **far),
        st.builds(said.Accepted, **head, **token, **peers6, **near),
        st.builds(said.Announced, **head, ttl_s=st.integers(0, limits.PEER_TTL_S), others=others),
        st.builds(
            said.Joined, **head, node_id=node_ids(), status=status, proof=_bytes(PROOF_BYTES)
        ),
    )


def _offers() -> SearchStrategy[said.Offer]:
    common = {
        "qid": _bytes(said.QID_BYTES),
        "node_id": node_ids(),
        "swarm": st.integers(0, 2**16 - 1),
        "flags": st.integers(0, 127),
    }
    peers4 = _tuples(ip4_addresses(), limits.OFFER_PEERS_V4)
    peers6 = _tuples(ip6_addresses(), limits.OFFER_PEERS_V6)
    cookies = _bytes(0) | _bytes(limits.COOKIE_BYTES)
    finders = st.none() | addresses()
    return st.one_of(
        st.builds(said.Offer, **common, cookie=cookies, peers4=peers4),
        st.builds(said.Offer, **common, cookie=cookies, peers6=peers6),
        st.builds(said.Offer, **common, cookie=_bytes(0), finder=finders, peers4=peers4),
        st.builds(said.Offer, **common, cookie=_bytes(0), finder=finders, peers6=peers6),
    )


def _hails() -> SearchStrategy[said.Hail]:
    topics_told = _tuples(_bytes(8), limits.LAN_TOPICS)
    return st.builds(said.Hail, port=st.integers(0, 65535), topics=topics_told)


def _bytes(size: int) -> SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def _tuples(values: SearchStrategy[Any], top: int) -> SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=top).map(tuple)


# --- content ---


def file_names() -> SearchStrategy[str]:
    """Names a file may have, from plain to surprising."""
    plain = st.text("abcXYZ019._- ", min_size=1, max_size=12)
    return (plain | st.text(min_size=1, max_size=12)).filter(_is_file_name)


def _is_file_name(name: str) -> bool:
    try:
        check_component(name)
    except UnsafeName:
        return False
    return True


@st.composite
def metadatas(draw: st.DrawFn) -> Metadata:
    """Metadata of a file or a small folder; the hashes are of nothing in particular."""
    piece_length = draw(st.sampled_from([1 << exponent for exponent in range(16, 25)]))
    length = st.integers(0, 4 * piece_length)
    name = draw(file_names())
    if draw(st.booleans()):
        files = [FileEntry((name,), draw(length), draw(st.booleans()))]
    else:
        # Folder names begin with "d", file names do not, so that no path is both.
        folders = st.lists(file_names().map("d".__add__).filter(_is_file_name), max_size=3)
        leaves = file_names().filter(lambda leaf: not leaf.startswith("d"))
        paths = st.builds(lambda inside, leaf: (name, *inside, leaf), folders, leaves)
        files = [
            FileEntry(path, draw(length), draw(st.booleans()))
            for path in draw(st.sets(paths, min_size=1, max_size=6))
        ]
    total = sum(entry.length for entry in files)
    count = piece_count(total, piece_length)
    hashes = draw(st.binary(min_size=HASH_BYTES * count, max_size=HASH_BYTES * count))
    return Metadata(piece_length, tuple(sorted(files, key=lambda file: file.joined)), hashes)


@st.composite
def descriptors(draw: st.DrawFn) -> Descriptor:
    """Descriptors, each of the optional fields there or not."""
    piece_length = draw(st.none() | st.sampled_from([1 << exponent for exponent in range(16, 25)]))
    length_max = (piece_length or limits.PIECE_LENGTH_MAX) * limits.PIECES_MAX
    return Descriptor(
        hash_key=draw(hash_keys()),
        nodes=tuple(draw(st.lists(host_ports(), unique=True, max_size=6))),
        name=draw(st.none() | file_names()),
        length=draw(st.none() | st.integers(0, min(length_max, limits.LENGTH_MAX))),
        piece_length=piece_length,
        sha256=draw(st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex)),
    )


# --- swarm ---


def piece_indices(count: int = limits.PIECES_MAX) -> SearchStrategy[PieceIndex]:
    """Indices of a content of ``count`` pieces; the largest content there is by default."""
    return st.integers(0, count - 1).map(PieceIndex)


def control_messages() -> SearchStrategy[messages.Message]:
    """Every message of an open connection but the two that carry data."""
    index = piece_indices()
    return st.one_of(
        st.builds(messages.Bye, st.integers(0, 255)),
        st.just(messages.KeepAlive()),
        st.builds(messages.Bitfield, st.binary(max_size=40)),
        st.builds(messages.Have, st.lists(index, min_size=1, max_size=20).map(tuple)),
        st.just(messages.MetadataRequest()),
        st.builds(messages.Interest, st.booleans()),
        st.builds(messages.Grant, index),
        st.builds(messages.Request, index),
        st.builds(messages.Decline, st.sampled_from(messages.DeclineReason)),
        st.just(messages.Ready()),
        st.builds(messages.Received, index),
        st.builds(messages.Cancel, index),
        st.builds(messages.Reject, index, st.sampled_from(messages.RejectReason)),
        peer_lists(),
    )


def peer_lists() -> SearchStrategy[messages.Peers]:
    """Peers that came and left, of both families."""
    v4, v6 = ip4_addresses(), ip6_addresses()
    flags = st.sampled_from([messages.PeerFlag(0), messages.PeerFlag.REACHED])
    notes4, notes6 = (st.builds(messages.PeerNote, family, flags) for family in (v4, v6))
    lists = (st.lists(each, max_size=5).map(tuple) for each in (notes4, notes6, v4, v6))
    return st.builds(messages.Peers, st.booleans(), *lists)


def data_messages() -> SearchStrategy[messages.Message]:
    """Blocks of pieces and parts of metadata, a few bytes each."""
    data = st.binary(min_size=1, max_size=40)
    offset = st.integers(0, limits.PIECE_LENGTH_MAX - 40)
    return st.one_of(
        st.builds(messages.Block, piece_indices(), offset, data),
        st.builds(
            lambda before, data, after: messages.MetadataPart(
                before + len(data) + after, before, data
            ),
            st.integers(0, 1000),
            data,
            st.integers(0, 1000),
        ),
    )


def handshake_messages() -> SearchStrategy[messages.Message]:
    """The three messages of the handshake, of the right sizes and no meaning."""

    def octets(size: int) -> SearchStrategy[bytes]:
        return st.binary(min_size=size, max_size=size)

    return st.one_of(
        st.builds(messages.Hello, topics(), octets(32), octets(32)),
        st.builds(messages.HelloReply, octets(32), octets(32), octets(64)),
        st.builds(messages.Proof, octets(64)),
        st.builds(messages.Binding, octets(32)),
    )


# --- bytes ---


@st.composite
def streams_cut_anywhere(draw: st.DrawFn, data: bytes, cuts_max: int = 8) -> list[bytes]:
    """Draw ``data`` cut into up to ``cuts_max + 1`` chunks, some perhaps empty, none lost."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=cuts_max)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def hostile_msgpack() -> SearchStrategy[bytes]:
    """Bytes meant to hurt an unpacker: odd types, deep nesting, false lengths, cut off, mutated."""
    packed = _objects().map(_pack)
    return st.one_of(
        st.binary(max_size=64),
        packed,
        _nested(),
        _false_lengths(),
        st.builds(lambda data, rest: data + rest, packed, st.binary(min_size=1, max_size=8)),
        packed.flatmap(lambda data: st.integers(0, len(data)).map(lambda end: data[:end])),
        packed.flatmap(mutations),
    )


def mutations(data: bytes) -> SearchStrategy[bytes]:
    """``data`` with one byte replaced by any other; ``data`` itself when it is empty."""
    if not data:
        return st.just(data)
    return st.builds(
        lambda at, flip: data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :],
        st.integers(0, len(data) - 1),
        st.integers(1, 255),
    )


def _objects() -> SearchStrategy[Any]:
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(),
        st.text(max_size=12),
        st.binary(max_size=40),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8)),
    )
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=20)
            | st.dictionaries(
                st.none() | st.booleans() | st.integers(0, 255) | st.text(max_size=4), inner
            )
        ),
        max_leaves=20,
    )


def _pack(value: object) -> bytes:
    packed = msgpack.packb(value, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def _nested() -> SearchStrategy[bytes]:
    """Arrays or maps in arrays or maps, far deeper than any recursion limit."""
    return st.builds(
        lambda header, depth: header * depth,
        st.sampled_from([b"\x91", b"\x81", b"\x81\xc0", b"\xdd\x00\x00\x00\x01"]),
        st.sampled_from([16, 600, 1100]),
    )


def _false_lengths() -> SearchStrategy[bytes]:
    """Headers that promise up to 4 GiB of str, bin, ext, array or map and bring a few bytes."""
    return st.builds(
        lambda header, length, rest: header + length.to_bytes(4, "big") + rest,
        st.sampled_from([b"\xdb", b"\xc6", b"\xc9", b"\xdd", b"\xdf"]),
        st.sampled_from([1 << 16, (1 << 31) - 1, (1 << 32) - 1]),
        st.binary(max_size=16),
    )
