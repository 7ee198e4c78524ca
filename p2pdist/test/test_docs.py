"""The documents against the code: examples, tables, links.

Job: decode every ``hex`` block of ``docs/protocol.md`` with the production code and compare it with
what the document says; check the tables that repeat the code, the example application, and that
links lead somewhere. Skipped where only the package is installed, without the documents.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, get_args
from unittest import SkipTest

from attrs import evolve

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.census.gossip import Digest, Records, Summary, Want
from p2pdist.census.records import NodeState, Reason, Report, sign
from p2pdist.content import FileEntry, Metadata, decode_metadata, hash_piece
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.faces.tap import Options
from p2pdist.ids import PieceIndex
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys, NodeKey, join_proof, topic_of
from p2pdist.overlay import messages as said
from p2pdist.overlay import wire
from p2pdist.overlay.envelope import NOTICE, Envelope, notice, read_header
from p2pdist.overlay.fields import NodeEntry
from p2pdist.stages import EVENTS, MOVES, Stage
from p2pdist.swarm import messages, peerwire
from p2pdist.swarm.binding import PrivateDialler, Secured
from p2pdist.swarm.handshake import Acceptor, Dialler
from p2pdist.swarm.knock import knock
from p2pdist.test.support import TestCase

TREE = Path(__file__).resolve().parent.parent.parent
DOCS = TREE / "docs"
TESTS = Path(__file__).resolve().parent
KEY_A, KEY_B, KEY_C = (NodeKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
A, B, C = (Address(f"10.0.0.{number}", 7667) for number in (1, 2, 3))
METADATA = Metadata(
    65536,
    (FileEntry(("hello", "README"), 6), FileEntry(("hello", "bin", "run"), 10, executable=True)),
    hash_piece(b"hello\n#!/bin/sh\n"),
)
HASH_KEY = METADATA.hash_key()
TOPIC = topic_of(HASH_KEY)
PRIVATE = NetworkKeys.from_secret(b"\x07" * 32)
RID = bytes.fromhex("a0a1a2a3a4a5a6a7")
TOKEN = bytes.fromhex("b0b1b2b3b4b5b6b7")
QID = bytes.fromhex("c0c1c2c3c4c5c6c7c8c9ca00")
COOKIE = bytes.fromhex("d0d1d2d3d4d5d6d7d8d9dadb")
CALL: dict[str, Any] = {"rid": RID, "attempt": 0}
FROM_A: dict[str, Any] = {**CALL, "token": TOKEN, "node_id": KEY_A.node_id}
_BLOCK = re.compile(r"^```hex name=(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def document(name: str) -> str:
    """Return the text of a document, or skip where it is not there."""
    path = TREE / name
    if not (TREE / "setup.cfg").exists():
        raise SkipTest("the source tree is not here")
    return path.read_text(encoding="utf-8")


def octets(text: str) -> bytes:
    """Return the bytes of a block: hexadecimal, ``xx*n`` for a byte n times, ``#`` comments."""
    data = b""
    for line in text.splitlines():
        for word in line.partition("#")[0].split():
            digits, _, times = word.partition("*")
            data += bytes.fromhex(digits) * int(times or 1)
    return data


def examples() -> dict[str, bytes]:
    """Return the examples of the protocol's document by name."""
    found = _BLOCK.findall(document("docs/protocol.md"))
    blocks = {name: octets(text) for name, text in found}
    assert len(blocks) == len(found), "an example is there twice"
    return blocks


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def expected_datagrams() -> dict[str, said.Message]:
    """Return what the UDP examples say."""
    status, flag = said.Status, said.Flag
    told: tuple[said.Message, ...] = (
        said.Ping(node_id=KEY_A.node_id, rid=RID),
        said.Pong(node_id=KEY_B.node_id, token=TOKEN, observed=A, **CALL),
        said.Challenge(token=TOKEN, **CALL),
        said.Error(error=said.ErrorCode.NOT_A_PEER, **CALL),
        said.Find(target=TOPIC, **FROM_A),
        said.Found(nodes4=(NodeEntry(KEY_C.node_id, C),), **CALL),
        said.GetPeers(
            **{**FROM_A, "node_id": KEY_B.node_id},
            qid=QID,
            topic=TOPIC,
            src=A,
            hops=1,
            units=2,
        ),
        said.Forwarded(verdict=said.Verdict.TAKEN, units=0, token=TOKEN, **CALL),
        said.Offer(
            qid=QID,
            node_id=KEY_C.node_id,
            cookie=COOKIE,
            swarm=2,
            flags=flag.MEMBER,
            peers4=(B,),
        ),
        said.Accept(qid=QID, cookie=COOKIE, topic=TOPIC, status=status.IDLE, sequence=7, **FROM_A),
        said.Accepted(
            token=TOKEN,
            peers4=(B, C),
            nodes6=(NodeEntry(KEY_C.node_id, Address("2001:db8::5", 7667)),),
            **CALL,
        ),
        said.Announce(topic=TOPIC, status=status.LEECH, sequence=8, **FROM_A),
        said.Announced(ttl_s=1800, others=1, **CALL),
        said.Join(topic=TOPIC, proof=proof(b"join", KEY_A, KEY_B), **FROM_A),
        said.Joined(
            node_id=KEY_B.node_id, status=status.SEED, proof=proof(b"joined", KEY_B, KEY_A), **CALL
        ),
        said.StatusUpdate(topic=TOPIC, status=status.SEED, sequence=9, **FROM_A),
        said.Noted(**CALL),
        said.Hail(port=7667, topics=(TOPIC[:8],)),
    )
    return {type(message).__name__: message for message in told}


def proof(label: bytes, first: NodeKey, second: NodeKey) -> bytes:
    """Return the proof of the examples' join."""
    return join_proof(HASH_KEY, label, RID, TOKEN, first.node_id, second.node_id)


def expected_frames() -> dict[str, Any]:
    """Return what the TCP examples say."""
    dialler = Dialler(HASH_KEY, KEY_A, b"\xd1" * 32)
    acceptor = Acceptor(KEY_B, b"\xac" * 32, {TOPIC: HASH_KEY}.get)
    hello = dialler.start()
    reply = acceptor.receive(hello)
    assert reply is not None
    private = PrivateDialler(HASH_KEY, PRIVATE.tcp_key(HASH_KEY))
    binding = private.secured(Secured(KEY_A.public, KEY_B.public, b"\xee" * 32))
    encoded = METADATA.encode()
    told = (
        hello,
        reply,
        dialler.receive(reply),
        binding,
        messages.Bye(messages.ByeReason.DONE),
        messages.KeepAlive(),
        messages.Bitfield(b"\xc0"),
        messages.Have((index(0), index(300))),
        messages.MetadataRequest(),
        messages.MetadataPart(len(encoded), 0, encoded[:16]),
        messages.Interest(wanted=True),
        messages.Grant(index(300)),
        messages.Request(index(7)),
        messages.Decline(messages.DeclineReason.BUSY),
        messages.Ready(),
        messages.Block(index(7), 262144, b"data"),
        messages.Received(index(7)),
        messages.Cancel(index(7)),
        messages.Reject(index(7), messages.RejectReason.CANCELLED),
        told_peers(),
        Digest(((RECORD.tag, 300),)),
        Want((RECORD.tag,)),
        Records(((12, RECORD.body, RECORD.signature),)),
        Summary(bytes(256)),
    )
    return {type(message).__name__: message for message in told}


RECORD = sign(
    Report(
        name="host-a",
        state=NodeState.DOWNLOADING,
        reason=Reason.REMOTE_UPLOAD,
        have=3,
        pieces=9,
        down=1000,
        up=500,
        version="1.0",
    ),
    300,
    KEY_A,
    TOPIC,
)
"""What A says of itself in the examples."""


def told_peers() -> messages.Peers:
    """Return the example of peers that came and left."""
    reached, called = messages.PeerFlag.REACHED, messages.PeerFlag(0)
    return messages.Peers(
        room=True,
        added4=(messages.PeerNote(B, reached), messages.PeerNote(C, called)),
        left4=(Address("10.0.0.4", 7667),),
        left6=(Address("2001:db8::5", 7667),),
    )


def index(number: int) -> PieceIndex:
    """Return a piece's index."""
    return PieceIndex(number)


class ExampleTests(TestCase):
    """The annotated bytes of docs/protocol.md."""

    def test_datagrams(self):
        """Each UDP example decodes to what the document says, and encodes back to its bytes."""
        found = examples()
        for name, message in expected_datagrams().items():
            self.assertEqual(message, wire.decode(found[name]), name)
            self.assertEqual(wire.encode(message), found[name], name)

    def test_frames(self):
        """Each TCP example decodes to what the document says, and encodes back to its bytes."""
        found = examples()
        for name, message in expected_frames().items():
            receiver = peerwire.PeerWire()
            list(receiver.receive_data(found["Preface"]))
            receiver.proved = name not in {"Hello", "HelloReply", "Proof", "Binding"}
            (received,) = receiver.receive_data(found[name])
            if isinstance(received, messages.Block | messages.MetadataPart):
                received = evolve(received, data=bytes(received.data))
            self.assertEqual(message, received, name)
            self.assertEqual(peerwire.encode(message), found[name], name)
        self.assertEqual(peerwire.PREFACE, found["Preface"])

    def test_every_message_has_an_example(self):
        """Every message of the overlay and every frame of the swarm has its example, once."""
        overlay = {kind.__name__ for kind in said.MESSAGES.values()}
        frames = {kind.__name__ for kind in get_args(messages.Message)}
        apart = {"Preface", "Datagram", "Notice", "Metadata", "Knock"}
        self.assertEqual(overlay, set(expected_datagrams()))
        self.assertEqual(frames, set(expected_frames()))
        self.assertEqual(overlay | frames | apart, set(examples()))

    def test_metadata(self):
        """The metadata example is what its hash_key names."""
        self.assertEqual(METADATA, decode_metadata(examples()["Metadata"], HASH_KEY))

    def test_envelope(self):
        """The sealed datagram opens with the public network's keys; its notice is its header."""
        found = examples()
        datagram = found["Datagram"]
        self.assertEqual(limits.PING_BYTES, len(datagram))
        header = read_header(datagram)
        opener = Envelope(PUBLIC_NETWORK, bytes)
        opener.boot_id = b"another process."
        self.assertEqual(found["Ping"], opener.open(datagram, header))
        self.assertEqual(notice(header), found["Notice"])
        self.assertEqual(NOTICE, read_header(found["Notice"]).version)

    def test_knock(self):
        """The knock is A's at B's door, before the record that the text names."""
        record = b"\x16\x03\x01\x00\x05hello"
        told = knock(PRIVATE, KEY_B.node_id, lambda size: b"\xab" * size, record)
        self.assertEqual(told, examples()["Knock"])

    def test_named_values(self):
        """Keys, tag, node ids, hash_key and topic of the document are the code's."""
        text = document("docs/protocol.md")
        for value in (
            *(PUBLIC_NETWORK.prk, PUBLIC_NETWORK.tag, PUBLIC_NETWORK.udp, HASH_KEY, TOPIC),
            *(key.node_id for key in (KEY_A, KEY_B, KEY_C)),
        ):
            self.assertIn(f"`{value.hex()}`", text)

    def test_descriptors(self):
        """File and line of the document are the same descriptor."""
        text = document("docs/protocol.md")
        parser = DescriptorParser()
        toml = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
        (line,) = re.findall(r"^p2pdist:b3:\S+$", text, re.MULTILINE)
        nodes = (HostPort("10.0.0.2", 7667), HostPort("2001:db8::5", 7667))
        told = Descriptor(hash_key=HASH_KEY, nodes=nodes, name="hello")
        self.assertEqual(told, parser.parse_uri(line))
        self.assertEqual(line, told.to_uri())
        self.assertEqual(evolve(told, length=16), parser.parse(toml))


class TableTests(TestCase):
    """Tables that repeat what the code says."""

    def test_limits(self):
        """Every number of the protocol's table of bounds is the one in limits."""
        units = {"KiB": limits.KIB, "MiB": limits.MIB}
        checked = 0
        for row in rows(document("docs/protocol.md")):
            name = re.fullmatch(r"`([A-Z][A-Z0-9_]+)`", row[-1])
            if name is None:
                continue
            wanted = getattr(limits, name[1])
            numbers = re.findall(r"([\d.]+)(?: (KiB|MiB))?", row[1])
            told = tuple(float(number) * units.get(unit, 1) for number, unit in numbers)
            self.assertEqual(wanted if isinstance(wanted, tuple) else (wanted,), told, row)
            checked += 1
        self.assertGreater(checked, 40)

    def test_stages(self):
        """The table of stages in docs/architecture.md is the machine's."""
        words = {stage.value: stage for stage in Stage}
        told = {}
        for row in rows(document("docs/architecture.md")):
            event = row[1].strip("`") if len(row) == 3 else ""
            if event not in EVENTS:
                continue
            stages = [words[word] for word in re.findall(r"\w+", row[0]) if word in words]
            if row[0].startswith("any"):
                stages = [stage for stage in Stage if stage not in stages]
            told.update({(stage, event): words[row[2]] for stage in stages})
        self.assertEqual(MOVES, told)


class LinkTests(TestCase):
    """Links between the documents."""

    def test_links_lead_somewhere(self):
        """Every relative link names a file that is there, and a heading in it."""
        document("README.md")
        broken = []
        for path in written("*.md"):
            text = path.read_text(encoding="utf-8")
            for link in re.findall(r"\]\(([^)\s]+)\)", text):
                if "://" in link or link.startswith("mailto:"):
                    continue
                name, _, anchor = link.partition("#")
                target = (path.parent / name).resolve() if name else path
                if not target.exists():
                    broken.append(f"{path.name}: {link}: no such file")
                elif anchor and anchor not in anchors(target):
                    broken.append(f"{path.name}: {link}: no such heading")
        self.assertEqual([], broken)

    def test_the_site_has_what_is_linked(self):
        """A document above docs/ that one of docs/ links to is a page of the site too."""
        (pages,) = re.findall(r"^OUTSIDE = (.*)$", document("docs/conf.py"), re.MULTILINE)
        linked = {
            name
            for path in written("*.md")
            if path.parent == DOCS
            for name in re.findall(r"\]\(\.\./([^)#\s]+\.md)", path.read_text(encoding="utf-8"))
        }
        self.assertIn("README.md", linked)
        self.assertLessEqual(linked, set(ast.literal_eval(pages)))

    def test_named_tests_are_there(self):
        """Every test that a document names exists, in the module that is named before it."""
        document("README.md")
        known = {
            path.stem: set(re.findall(r"(?:def|class) (\w+)", path.read_text(encoding="utf-8")))
            for path in TESTS.glob("test_*.py")
        }
        missing, checked = [], 0
        for path in written("*.md"):
            for line in path.read_text(encoding="utf-8").splitlines():
                module = ""
                for one, name in re.findall(r"`(test_\w+)(?:\.(\w+))?`", line):
                    module, wanted = (one, name) if one in known else (module, one)
                    checked += 1
                    if module not in known or wanted not in known[module] | {"", "py"}:
                        missing.append(f"{path.name}: {module or '?'}.{wanted}")
        self.assertEqual([], missing)
        self.assertGreater(checked, 150)

    def test_no_machine_is_named(self):
        """No document holds a path of the machine it was written on."""
        document("README.md")
        for path in written("*.*"):
            text = path.read_text(encoding="utf-8", errors="replace")  # pictures too
            self.assertIsNone(re.search(r"/(work|tmp|home|root)/", text), path.name)


def written(pattern: str) -> list[Path]:
    """Return the documents, but for those that ``make docs`` made of them."""
    return sorted(
        path
        for path in (*TREE.glob("*.md"), *DOCS.rglob(pattern))
        if {"_build", "generated", "__pycache__"}.isdisjoint(path.relative_to(TREE).parts)
    )


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


class BenchmarkTests(TestCase):
    """What measures."""

    def test_every_script_is_listed(self):
        """Each script that measures is described, and ``make bench-quick`` runs it."""
        told, run = document("benchmarks/README.md"), document("benchmarks/run.py")
        scripts = [
            path.name
            for path in (TREE / "benchmarks").glob("*.py")
            if re.search(r"\boptions\(__doc__", path.read_text(encoding="utf-8"))
        ]
        self.assertIn("census.py", scripts)
        self.assertEqual(
            [], [name for name in scripts if f"| `{name}` |" not in told + "| `run.py` |"]
        )
        self.assertEqual([], [name for name in scripts if f'"{name}",' not in run + '"run.py",'])


class ConfigurationTests(TestCase):
    """The configuration file of docs/operations.md."""

    def test_every_option(self):
        """Every option of twistd p2pdist stands in the example, and nothing else does."""
        text = document("docs/operations.md")
        after = text.partition("## Configuration file")[2]
        (shown,) = re.findall(r"^```toml\n(.*?)^```", after, re.MULTILINE | re.DOTALL)[:1]
        keys = set(re.findall(r"^([a-z-]+) = ", shown, re.MULTILINE))
        options = {name.rstrip("=") for name in Options().longOpt}
        self.assertEqual(options - {"config", "help", "version"}, keys)
