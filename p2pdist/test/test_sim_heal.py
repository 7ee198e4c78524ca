"""How soon a swarm is whole again after a partition, a seed's absence, dead entries, silent names.

The scenes are in ``healing``; ``benchmarks/reliability.py`` plays each with many seeds.
"""

from __future__ import annotations

from p2pdist import limits
from p2pdist.memberships import Memberships
from p2pdist.test import healing
from p2pdist.test.support import TestCase

PARTITION_S = 30.0
SEED_S = 30.0
BOOTSTRAP_S = 65.0


class HealTests(TestCase):
    """Simulated seconds from the end of the trouble to the first sign of recovery."""

    def test_partition(self) -> None:
        """After a partition of any length pieces cross it again within half a minute."""
        self.assertLessEqual(healing.after_partition(1, 300), PARTITION_S)
        self.assertLessEqual(healing.after_partition(2, 1800), PARTITION_S)

    def test_one_way_partition(self) -> None:
        """The same when packets were lost in one direction only."""
        self.assertLessEqual(healing.after_partition(3, 90, one_way=True), PARTITION_S)

    def test_stalled_downloader_searches_on(self) -> None:
        """While peers have nothing for us, others are looked for every STALL_SEARCH_S."""
        world, _, stations = healing.swarm(1, 2)
        stations[1].host.crash()
        world.run(300)
        searches: list[float] = []
        watched, search = stations[2].session.membership, Memberships.search

        def record(memberships: Memberships) -> None:
            if memberships is watched:
                searches.append(world.now)
            search(memberships)

        self.patch(Memberships, "search", record)
        world.run(10 * limits.STALL_SEARCH_S[1])
        self.assertIn(len(searches), range(5, 12))

    def test_seed_back(self) -> None:
        """A seed that comes back is used within half a minute, however long it was away."""
        self.assertLessEqual(healing.after_seed_returns(0, 60), SEED_S)
        self.assertLessEqual(healing.after_seed_returns(1, 900, lonely=True), SEED_S)

    def test_bootstraps_back(self) -> None:
        """A newcomer finds its swarm 65 s after the only node it was given is there again."""
        self.assertLessEqual(healing.after_bootstraps_return(1, 300), BOOTSTRAP_S)

    def test_restarted_bootstrap_is_told_again(self) -> None:
        """A node of the descriptor that was restarted knows the swarm again within 65 s."""
        self.assertLessEqual(healing.newcomer_after_restart(0), BOOTSTRAP_S)

    def test_silent_name_server(self) -> None:
        """A name whose server hangs is asked for again; everything else goes on meanwhile."""
        took = healing.after_names_return(0, 300)
        self.assertLessEqual(took, BOOTSTRAP_S + limits.DNS_TIMEOUT_S)

    def test_ipv6_only(self) -> None:
        """Machines without any IPv4 address form a swarm."""
        self.assertLessEqual(healing.ipv6_only(0), BOOTSTRAP_S)
