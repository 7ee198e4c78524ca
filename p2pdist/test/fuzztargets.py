"""One fuzz target for each parser of what comes from outside.

A target takes any bytes and returns: what the parser refuses in its documented way is fine, every
other exception is a bug. Where a checksum stands before the parser, the target puts the right one
there, or chance would never get past it.

Job: the targets and well-formed samples to begin from. Does NOT draw bytes: that do ``test_fuzz``
(Hypothesis, few), ``tools/fuzz/cases.py`` (Hypothesis, many) and ``tools/fuzz/atheris_target.py``
(coverage-guided). Tests: ``test_fuzz``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred

from p2pdist import limits, neighbours, signatures
from p2pdist.addresses import Address
from p2pdist.census.gossip import Census, Digest, Records, Summary, Want
from p2pdist.census.records import NodeState, Reason, Report, sign
from p2pdist.content import FileEntry, Metadata, decode_metadata, hash_piece
from p2pdist.control import Control
from p2pdist.descriptor import DescriptorParser
from p2pdist.errors import (
    ConfigurationError,
    DescriptorError,
    RemoteProtocolError,
)
from p2pdist.ids import HASH_KEY_BYTES, HashKey, NodeID, PieceIndex
from p2pdist.keys import PUBLIC_NETWORK, NodeKey, topic_of
from p2pdist.overlay import wire
from p2pdist.overlay.envelope import Envelope, read_header
from p2pdist.overlay.messages import Find, GetPeers, Message, Offer, Ping
from p2pdist.secret import Secret
from p2pdist.secretfile import read_secret_file
from p2pdist.service import P2PDistService
from p2pdist.signers import parse_revoked, parse_signers
from p2pdist.storage import records, statefile
from p2pdist.storage.pieces import Bitfield
from p2pdist.swarm import messages
from p2pdist.swarm.handshake import Acceptor, Dialler
from p2pdist.swarm.peerwire import PREFACE, PeerWire
from p2pdist.swarm.peerwire import encode as encode_frame
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import one_file

OURS = NodeKey.from_seed(bytes(32))
OTHER = NodeKey.from_seed(bytes([1]) * 32)
KEY = HashKey(bytes(range(HASH_KEY_BYTES)))
NOW = 1_900_000_000.0
"""A time of day at which the samples' signers are valid."""


@frozen
class Target:
    """One parser.

    Attributes:
        run: takes any bytes; raises only when the parser does what it must not.
        samples: well-formed inputs.
        remote: whether the bytes come in one datagram or control frame, with its bound of work.
    """

    run: Callable[[bytes], None]
    samples: Callable[[], list[bytes]]
    remote: bool = False


# --- descriptors and what stands beside them ---


def _descriptor(data: bytes) -> None:
    parser = DescriptorParser(credentials=None)
    with suppress(DescriptorError):
        parser.parse(data)
    with suppress(DescriptorError):
        parser.parse_uri(data.decode("utf-8", "surrogateescape"))


def _descriptors() -> list[bytes]:
    made = one_file().descriptor()
    key = f"b3:{KEY.hex()}"
    values = {"hash_key": key, "nodes": ["a.example:7667"], "length": 5}
    return [
        made.to_toml().encode(),
        f'hash_key = "{key}"\nnodes = ["10.0.0.1", "[::1]:5"]\nname = "x"\nlength = 9\n'.encode(),
        json.dumps(values).encode(),
        made.to_uri().encode(),
    ]


def _signature(data: bytes) -> None:
    with suppress(ValueError):
        signatures.parse_signature(data)


@cache
def _signer() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def _signatures() -> list[bytes]:
    return [signatures.sign(_signer(), b"text").armored()]


def _signers(data: bytes) -> None:
    with suppress(ConfigurationError):
        parse_signers(data, "signers", lambda: NOW)
    with suppress(ConfigurationError):
        parse_revoked(data, "revoked")


def _signer_lines() -> list[bytes]:
    words = _signer().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return [
        b"a@example.org " + words + b"\n",
        b'*@example.org namespaces="p2pdist-descriptor",valid-before="20401231Z" ' + words,
        b"# comment\n" + words,
    ]


@cache
def _scratch() -> Path:
    path = Path(tempfile.mkdtemp(prefix="p2pdist-fuzz-")) / "secret"
    path.touch(0o600)
    return path


def _secret_file(data: bytes) -> None:
    path = _scratch()
    path.write_bytes(data)
    with suppress(ConfigurationError):
        read_secret_file(os.fspath(path))
    with suppress(ValueError):
        Secret.parse(data.decode("utf-8", "surrogateescape"))


def _secrets() -> list[bytes]:
    secret = Secret.new(lambda size: bytes(range(size))).text
    return [f"# a comment\n{secret}\n".encode(), secret.encode()]


# --- datagrams ---


@cache
def _envelope(number: int) -> Envelope:
    return Envelope(PUBLIC_NETWORK, lambda size: bytes([number]) * size)


def _datagram(data: bytes) -> None:
    """As it arrives: header, seal, message."""
    with suppress(RemoteProtocolError):
        wire.decode(_envelope(1).open(data, read_header(data)))


def _payload(data: bytes) -> None:
    """Behind the seal, which everybody in the public network can make."""
    try:
        message = wire.decode(data)
    except RemoteProtocolError:
        return
    again = wire.decode(wire.encode(message))
    assert again == message, (again, message)


def _payloads() -> list[bytes]:
    head: dict[str, Any] = {
        "node_id": NodeID(bytes(20)),
        "rid": bytes(8),
        "attempt": 0,
        "token": bytes(limits.TOKEN_BYTES),
    }
    walk: dict[str, Any] = {"qid": bytes(8), "topic": topic_of(KEY), "src": None, "via": None}
    address = Address("10.0.0.1", 5)
    said: list[Message] = [
        Ping(**head, flags=0),
        Find(**head, target=bytes(20)),
        GetPeers(**head, **walk, hops=3, flags=0, units=2),
        Offer(
            qid=bytes(8),
            node_id=NodeID(bytes(20)),
            cookie=b"",
            swarm=2,
            finder=address,
            peers4=(address,),
        ),
    ]
    return [wire.encode(message) for message in said]


def _datagrams() -> list[bytes]:
    return [_envelope(2).seal(payload) for payload in _payloads()]


# --- frames ---


def _feed(wire_: PeerWire, data: bytes) -> None:
    """Feed a connection in parts whose sizes the first byte decides."""
    step = (data[0] if data else 0) or 65536
    rest = data[1:]
    for start in range(0, len(rest), step):
        for _ in wire_.receive_data(rest[start : start + step]):
            pass


def _frames(data: bytes) -> None:
    """A connection after the handshake."""
    connection = PeerWire()
    list(connection.receive_data(PREFACE))
    connection.proved = True
    with suppress(RemoteProtocolError):
        _feed(connection, data)


def _frame_samples() -> list[bytes]:
    said: list[messages.Message] = [
        messages.Bitfield(b"\xf0"),
        messages.Have((PieceIndex(1), PieceIndex(7))),
        messages.Grant(PieceIndex(3)),
        messages.Block(PieceIndex(1), 0, memoryview(bytes(20))),
        messages.MetadataPart(20, 0, memoryview(bytes(20))),
        messages.Reject(PieceIndex(2), messages.RejectReason.GONE),
        Digest(((bytes(8), 5),)),
    ]
    frames = [encode_frame(message) for message in said]
    return [bytes([step]) + b"".join(frames) for step in (0, 1, 7)]


def _handshake(data: bytes) -> None:
    """A connection before the handshake, from either side; what it proves is checked."""
    sides: tuple[Acceptor | Dialler, ...] = (
        Acceptor(OURS, bytes(32), lambda topic: KEY if topic == topic_of(KEY) else None),
        Dialler(KEY, OURS, bytes(32)),
    )
    for side in sides:
        connection = PeerWire()
        with suppress(RemoteProtocolError):
            for message in connection.receive_data(data):
                side.receive(message)


def _handshakes() -> list[bytes]:
    dialler = Dialler(KEY, OTHER, bytes(32))
    acceptor = Acceptor(OURS, bytes(32), lambda _topic: KEY)
    hello = dialler.start()
    reply = acceptor.receive(hello)
    assert reply is not None
    proof = dialler.receive(reply)
    from_other = Acceptor(OTHER, bytes(32), lambda _topic: KEY)
    answer = from_other.receive(Dialler(KEY, OURS, bytes(32)).start())
    assert answer is not None
    return [
        PREFACE + encode_frame(hello) + encode_frame(proof),
        PREFACE + encode_frame(answer),
    ]


def _census(data: bytes) -> None:
    """Census frames, and whatever the first of their records holds."""
    connection = PeerWire()
    list(connection.receive_data(PREFACE))
    connection.proved = True
    census: Census[str] = Census(OURS, topic_of(KEY), random.Random(1))
    with suppress(RemoteProtocolError):
        for message in connection.receive_data(data):
            if isinstance(message, (Digest, Want, Records, Summary)):
                census.received("peer", message, NOW)


def _census_frames() -> list[bytes]:
    report = Report(
        name="host",
        state=NodeState(1),
        reason=Reason(0),
        have=1,
        pieces=2,
        down=0,
        up=0,
        disk_free=5,
        version="1",
    )
    record = sign(report, 5, OTHER, topic_of(KEY))
    return [
        encode_frame(Records(((3, record.body, record.signature),))),
        encode_frame(Digest(((record.tag, 5),))),
        encode_frame(Want((record.tag,))),
    ]


# --- metadata and files of our own ---


def _metadata(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        decode_metadata(data, HashKey(hash_piece(data)))


def _metadatas() -> list[bytes]:
    entries = (
        FileEntry(("t", "a"), 5, executable=False),
        FileEntry(("t", "b"), 9, executable=True),
    )
    return [
        one_file().metadata.encode(),
        Metadata(limits.PIECE_LENGTH_MIN, entries, bytes(32)).encode(),
    ]


def _state_file(data: bytes) -> None:
    """A whole state file; then one whose slots hold ``data`` under a right checksum."""
    made, identity = one_file(), bytes(32)
    head = statefile.MAGIC + made.hash_key + len(made.metadata.encode()).to_bytes(4, "big")
    offsets = statefile.slot_offsets(len(made.metadata.encode()), made.count)
    body = data[: statefile.slot_bytes(made.count) - 32]
    slot = body + hashlib.sha256(made.hash_key + identity + body).digest()
    whole = (head + made.metadata.encode()).ljust(offsets[0], b"\0") + slot
    for content in (data, whole):
        disk = SimDisk()
        disk.put("/d/s", content)
        state = statefile.StateFile.open(disk, "/d", "s", made.hash_key, create=False)
        assert state is not None
        if state.metadata is not None:
            state.load(identity)
        state.close()


def _state_files() -> list[bytes]:
    made = one_file()
    disk = SimDisk()
    disk.put_folder("/d")
    state = statefile.StateFile.open(disk, "/d", "s", made.hash_key, create=True)
    assert state is not None
    state.begin(made.metadata)
    state.save(bytes(32), Bitfield.full(made.count))
    state.close()
    return [disk.get("/d/s"), (5).to_bytes(8, "big") + b"\xf0"]


def _record(data: bytes) -> None:
    """The body of a record, under a right checksum."""
    key = one_file().hash_key
    records.Record.decode(data, key)
    records.Record.decode(records.MAGIC + hashlib.sha256(data).digest() + data, key)


def _records() -> list[bytes]:
    record = records.Record(one_file().metadata, "/d", "file.bin", bytes(40))
    return [record.encode(), record.encode()[len(records.MAGIC) + 32 :]]


def _neighbours(data: bytes) -> None:
    neighbours.decode(data)


def _neighbour_files() -> list[bytes]:
    part = {"neighbours": ["10.0.0.1:5"], "peers": {f"b3:{KEY.hex()}": ["[::1]:7"]}}
    return [json.dumps({"networks": {"00ff00ff": part}}).encode()]


# --- the control socket ---


@cache
def _service() -> P2PDistService:
    return Station.at(World(1), "10.0.0.1").run()


def _request(data: bytes) -> None:
    answers: list[Any] = []
    answering: Deferred[Any] = Control(_service(), DescriptorParser(credentials=None)).answer(data)
    answering.addBoth(answers.append)
    for answer in answers:
        text = json.dumps(answer)
        assert '"a bug;' not in text, text
    contents = _service().contents
    for key in tuple(contents.sessions):
        contents.remove(key)


def _requests() -> list[bytes]:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("status", {}),
        ("fleet", {"hash_key": f"b3:{KEY.hex()}"}),
        ("limit", {"upload": "5MB", "download": "none"}),
        ("remove", {"content": "x"}),
        ("pause", {"content": "x"}),
        ("resume", {"content": "x"}),
        ("add", {"descriptor": "p2pdist:b3:00"}),
    ]
    return [json.dumps({"method": name, "params": params}).encode() for name, params in asked]


TARGETS: dict[str, Target] = {
    "census": Target(_census, _census_frames, remote=True),
    "control": Target(_request, _requests),
    "datagram": Target(_datagram, _datagrams, remote=True),
    "descriptor": Target(_descriptor, _descriptors),
    "frames": Target(_frames, _frame_samples, remote=True),
    "handshake": Target(_handshake, _handshakes, remote=True),
    "message": Target(_payload, _payloads, remote=True),
    "metadata": Target(_metadata, _metadatas),
    "neighbours": Target(_neighbours, _neighbour_files),
    "record": Target(_record, _records),
    "secret": Target(_secret_file, _secrets),
    "signature": Target(_signature, _signatures),
    "signers": Target(_signers, _signer_lines),
    "state": Target(_state_file, _state_files),
}
