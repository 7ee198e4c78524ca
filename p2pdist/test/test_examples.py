"""docs/examples/*.py: every program of the documents, run as it stands, in the simulated network.

Two of them also run as processes on loopback, in ``test_e2e_docs``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType

from attrs import evolve
from twisted.internet.defer import Deferred

from p2pdist.addresses import HostPort
from p2pdist.config import Config
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.errors import DescriptorError
from p2pdist.test.storehouse import DATA
from p2pdist.test.support import TestCase
from p2pdist.test.test_api import LibraryCase
from p2pdist.test.test_docs import DOCS, TREE, document

EXAMPLES = DOCS / "examples"


def example(name: str) -> ModuleType:
    """Import an example, or skip where the documents are not."""
    document(f"docs/examples/{name}.py")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ExampleTests(LibraryCase):
    """Each example, once."""

    def setUp(self):
        """Catch what is printed."""
        super().setUp()
        self.printed = io.StringIO()
        catching = contextlib.redirect_stdout(self.printed)
        catching.__enter__()
        self.addCleanup(catching.__exit__, None, None, None)

    def described(self, descriptor: Descriptor) -> str:
        """Write a descriptor's file, and return its path."""
        path = Path(self.mktemp())
        path.write_text(descriptor.to_toml())
        return str(path)

    def test_fetch(self):
        """It prints how far it is, then where the copy is."""
        _, descriptor = self.seeded(pieces=400)
        client = self.station("10.0.0.2")
        work = example("fetch").main(client.host.reactor, self.described(descriptor), DATA)
        self.world.wait_for(work)
        self.assertRegex(self.printed.getvalue(), r"file\.bin: \d+ %, 1 peers")
        self.assertIn(f"complete and verified: {DATA}/file.bin\n", self.printed.getvalue())
        self.assert_nothing_left(client)

    def test_fetch_that_cannot_be(self):
        """It ends with the sentence of the error, no traceback."""
        client = self.station("10.0.0.2")
        waiting = Deferred.fromCoroutine(
            example("fetch").main(client.host.reactor, self.described_badly(), DATA)
        )
        ends: list[str] = []
        waiting.addErrback(lambda failure: ends.append(str(failure.value)))
        self.world.run_until(lambda: ends)
        with self.assertRaises(DescriptorError) as caught:
            DescriptorParser().parse_file(self.described_badly())
        self.assertEqual(str(caught.exception).partition(":")[2], ends[0].partition(":")[2])

    def described_badly(self) -> str:
        """Write a descriptor without a hash key."""
        path = Path(self.mktemp())
        path.write_text("nodes = []\n")
        return str(path)

    def test_distribute(self):
        """It writes the descriptor, serves until two have it, and ends with their names."""
        path = self.original()
        sender = self.station("10.0.0.1", real_files=True)
        arguments = (str(path), "10.0.0.1", "7667", "2")
        work = Deferred.fromCoroutine(example("distribute").main(sender.host.reactor, *arguments))
        descriptor = path.with_name("model.bin.desc")
        self.world.run_until(descriptor.exists)
        client = self.station("10.0.0.2")
        client.run(DescriptorParser().parse_file(str(descriptor)), name="second")
        self.world.wait_for(work)
        self.assertIn("second has it\n", self.printed.getvalue())
        self.assertEqual(path.read_bytes(), client.disk.get(f"{DATA}/model.bin"))
        self.assert_nothing_left(sender)

    def test_rollout(self):
        """It switches over when everything is there, and goes on serving with less."""
        _, descriptor = self.seeded()
        client, other = self.station("10.0.0.2"), self.station("10.0.0.3")
        rollout = example("rollout")
        joining = rollout.join_rollout(client.host.reactor, self.described(descriptor), DATA)
        swarm = self.world.wait_for(joining)
        self.assertEqual(f"ready: {DATA}/file.bin\n", self.printed.getvalue())
        at_client = evolve(descriptor, nodes=(HostPort("10.0.0.2", swarm.port),))
        other.run(at_client)
        self.world.run_until(lambda: other.session.status().progress.have_pieces == 4)
        self.world.wait_for(swarm.stop())

    def test_embed(self):
        """The service of an application fetches a content from a seed and stops cleanly."""
        _, descriptor = self.seeded()
        client = self.station("10.0.0.2")
        config = Config(directory=DATA, listen=("0.0.0.0",))
        path = self.world.wait_for(example("embed").fetch(client.machine, config, descriptor))
        self.assertEqual(f"{DATA}/file.bin", path)
        self.assert_nothing_left(client)


class ShownTests(TestCase):
    """Examples in the text of documents."""

    def test_every_example_is_tested(self):
        """Each file of docs/examples is run above."""
        document("README.md")
        names = {path.stem for path in EXAMPLES.glob("*.py")}
        here = Path(__file__).read_text(encoding="utf-8")
        self.assertEqual(names, set(re.findall(r'example\("(\w+)"\)', here)))

    def test_shown_code_is_tested_code(self):
        """A Python block that names an example's file is part of that file, word for word."""
        document("README.md")
        shown = 0
        for path in (TREE / "README.md", *DOCS.glob("*.md")):
            text = path.read_text(encoding="utf-8")
            for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
                sources = [file.read_text(encoding="utf-8") for file in EXAMPLES.glob("*.py")]
                self.assertTrue(any(block in source for source in sources), block)
                shown += 1
        self.assertGreater(shown, 2)
