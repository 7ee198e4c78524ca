"""Every parser of what comes from outside, with inputs nobody would make (``fuzztargets``).

A few here; ``tools/fuzz`` has the same targets with 200,000 cases each, and guided by coverage.
What those found worth keeping stands in ``tools/fuzz/corpus`` and is replayed here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import p2pdist
from p2pdist.test.fuzztargets import TARGETS, Target
from p2pdist.test.strategies import hostile_msgpack, mutations
from p2pdist.test.support import Falsified, TestCase, given

CORPUS = Path(p2pdist.__file__).parents[1] / "tools" / "fuzz" / "corpus"
EXAMPLES = 40


def inputs(target: Target) -> SearchStrategy[bytes]:
    """Anything: noise, msgpack that lies, samples cut, joined, repeated, with bytes changed."""
    samples = st.sampled_from(target.samples())
    changed = samples.flatmap(mutations)
    cut = st.builds(lambda data, end: data[: end % (len(data) + 1)], samples, st.integers(0))
    spliced = st.builds(
        lambda data, at, new: data[: at % (len(data) + 1)] + new + data[at % (len(data) + 1) :],
        samples,
        st.integers(0, 4096),
        st.binary(max_size=20) | hostile_msgpack(),
    )
    return st.one_of(
        samples,
        changed,
        changed.flatmap(mutations),
        cut,
        spliced,
        st.builds(lambda one, other: one + other, samples, changed),
        st.binary(max_size=200),
        hostile_msgpack(),
        st.builds(lambda data, count: data * count, st.binary(max_size=4), st.integers(1, 2000)),
    )


def corpus(name: str) -> list[bytes]:
    """Return what longer runs kept; nothing where the tree is not around."""
    path = CORPUS / f"{name}.txt"
    lines = path.read_text().split() if path.exists() else []
    return [bytes.fromhex(line) for line in lines]


def property_of(target: Target, examples: int) -> Callable[[TestCase], None]:
    """Return a test method that draws inputs for one target."""

    @settings(max_examples=examples)
    @given(inputs(target))
    def check(case: TestCase, data: bytes) -> None:
        del case
        target.run(data)

    return check


class FuzzTests(TestCase):
    """No bytes make a parser do anything but take or refuse them."""

    def check(self, name: str) -> None:
        """Try samples, corpus and drawn inputs on one parser."""
        target = TARGETS[name]
        for data in [*target.samples(), *corpus(name)]:
            target.run(data)
        property_of(target, EXAMPLES)(self)

    def test_census(self) -> None:
        """Frames of the census and the records in them."""
        self.check("census")

    def test_control(self) -> None:
        """Requests on the control socket."""
        self.check("control")

    def test_datagram(self) -> None:
        """Datagrams as they arrive."""
        self.check("datagram")

    def test_descriptor(self) -> None:
        """Descriptors, TOML, JSON and one line."""
        self.check("descriptor")

    def test_frames(self) -> None:
        """A proved connection, cut anywhere."""
        self.check("frames")

    def test_handshake(self) -> None:
        """A connection that is not proved yet."""
        self.check("handshake")

    def test_message(self) -> None:
        """Messages of nodes, as they come out of the envelope."""
        self.check("message")

    def test_metadata(self) -> None:
        """Metadata that is what its hash says."""
        self.check("metadata")

    def test_neighbours(self) -> None:
        """Saved neighbours."""
        self.check("neighbours")

    def test_record(self) -> None:
        """Records of complete contents."""
        self.check("record")

    def test_secret(self) -> None:
        """Secrets and files of them."""
        self.check("secret")

    def test_signature(self) -> None:
        """Signatures of descriptors."""
        self.check("signature")

    def test_signers(self) -> None:
        """Allowed signers and revoked keys."""
        self.check("signers")

    def test_state(self) -> None:
        """State files of downloads."""
        self.check("state")


class TargetTests(TestCase):
    """The fuzzing itself looks where it matters."""

    def test_every_target_is_tested(self) -> None:
        """Each has a test above."""
        tested = {name.removeprefix("test_") for name in vars(FuzzTests) if "test_" in name}
        self.assertEqual(set(TARGETS), tested)

    def test_a_parser_that_breaks_is_seen(self) -> None:
        """An exception that is not the parser's own comes out with its input."""

        def breaks(data: bytes) -> None:
            if b"\x00" in data:
                raise IndexError(data)

        broken = Target(breaks, lambda: [b"abc"])
        self.assertRaises((IndexError, Falsified), property_of(broken, 200), self)
