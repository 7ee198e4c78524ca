"""Two simulated machines, a seed and a downloader, and the control of the latter.

The smallest world in which there is something to ask and to tell; the control socket's tests and
the page's begin with it.
"""

from __future__ import annotations

from p2pdist.control import Control
from p2pdist.descriptor import DescriptorParser
from p2pdist.stages import Stage
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import Content, one_file
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan


class PairCase(TestCase):
    """A seed and a downloader of one content, the latter under control."""

    def setUp(self) -> None:
        """Start both."""
        self.made: Content = one_file()
        self.world: World = lan()
        self.seed = Station.at(self.world, "10.0.1.1")
        self.seed.store(self.made)
        self.seed.run(self.made.descriptor(), name="seed-host")
        self.world.run(2)
        self.leech = Station.at(self.world, "10.0.1.2")
        self.service = self.leech.run(pointing(self.made, self.seed), name="leech-host")
        self.control = Control(self.service, DescriptorParser())

    def finish(self) -> None:
        """Let the download end."""
        self.world.run_until(lambda: self.leech.session.stage is Stage.SEEDING, timeout=60)
        self.world.run(3)
