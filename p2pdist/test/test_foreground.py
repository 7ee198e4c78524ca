"""``get`` and ``seed`` without a terminal: a foreground node in the simulated network."""

from __future__ import annotations

from pathlib import Path

from attrs import define, evolve, field

from p2pdist import limits
from p2pdist.config import Config
from p2pdist.errors import (
    ConfigurationError,
    DescriptorError,
    NoPeersFound,
    StorageError,
)
from p2pdist.faces.cli.foreground import (
    Foreground,
    TimedOut,
    make_config,
    read_descriptor,
)
from p2pdist.handout import receiver_command
from p2pdist.ids import HashKey
from p2pdist.secret import Secret
from p2pdist.stages import Stage
from p2pdist.swarm.throttle import RateLimits
from p2pdist.test.servicesworld import Station, failures_of, pointing
from p2pdist.test.storehouse import DATA, PIECE, Content, content, one_file
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan, swarm


@define
class Lines:
    """A meter that records what it is shown."""

    shown: list[tuple[int, int, str]] = field(factory=list)

    def update(self, done: int, total: int, note: str = "") -> None:
        """Record it."""
        self.shown.append((done, total, note))


def foreground(
    station: Station, made: Content, *nodes: Station, seed_only: bool = False, **options
) -> Foreground:
    """Build what ``get`` runs."""
    config = Config(directory=DATA, listen=("0.0.0.0",), lan=False)
    return Foreground(
        station.machine,
        config,
        options.pop("meter", Lines()),
        lambda service: service.add(pointing(made, *nodes), seed_only=seed_only),
        **options,
    )


class ForegroundTests(TestCase):
    """One content from the command to the end."""

    def test_get_ends_when_verified(self):
        """The Deferred fires with the last status after a clean stop; the copy is there."""
        made = content({"model.bin": 30 * PIECE})
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        meter = Lines()
        status = world.wait_for(foreground(leech, made, bootstrap, meter=meter).run())
        self.assertIs(Stage.SEEDING, status.stage)
        self.assertEqual(f"{DATA}/model.bin", status.path)
        self.assertTrue(leech.holds(made))
        self.assertEqual([], leech.host.leaks())
        self.assertEqual((30 * PIECE, 30 * PIECE), meter.shown[-1][:2])

    def test_progress_is_shown_every_second(self):
        """There is a progress line every ``limits.PROGRESS_EVERY_S``, whatever happens."""
        world = lan()
        meter = Lines()
        foreground(Station.at(world, "10.0.1.1"), one_file(), meter=meter).run()
        world.run(20.5)
        self.assertEqual(21, len(meter.shown), limits.PROGRESS_EVERY_S)

    def test_seed_option_stays(self):
        """With ``--seed`` the node tells its status and port once, and goes on."""
        made = one_file()
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        told = []
        running = foreground(
            leech, made, bootstrap, stay=lambda status, port: told.append((status.stage, port))
        ).run()
        world.run(30)
        self.assertEqual([(Stage.SEEDING, 7667)], told)
        self.assert_waiting(running)

    def test_progress_line_says_what_is_waited_for(self):
        """While nobody has the content, the line names the nodes and what they say."""
        made = one_file()
        world = lan()
        bootstrap = Station.at(world, "10.0.0.1")
        bootstrap.run()
        meter = Lines()
        foreground(Station.at(world, "10.0.1.1"), made, bootstrap, meter=meter).run()
        world.run(12)
        self.assertIn("10.0.0.1:7667 answers, but knows no peers yet", meter.shown[-1][2])

    def test_timeout_without_peers(self):
        """When nobody was found in time, the error is NoPeersFound and says who did what."""
        made = one_file()
        world = lan()
        leech = Station.at(world, "10.0.1.1")
        nobody = Station.at(world, "10.0.0.1")
        errors = failures_of(foreground(leech, made, nobody, timeout_s=20.0).run())
        world.run(25)
        self.assertEqual([NoPeersFound], [failure.type for failure in errors])
        self.assertIn("10.0.0.1:7667 no answer", str(errors[0].value))
        self.assertEqual([], leech.host.leaks())

    def test_timeout_with_peers(self):
        """When there are peers but not everything came in time, the exit code is another."""
        made = content({"model.bin": 200 * PIECE})
        world = lan()
        world.link(delay=(0.001, 0.003), bandwidth=500_000)
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        errors = failures_of(foreground(leech, made, bootstrap, timeout_s=5.0).run())
        world.run(8)
        self.assertEqual([TimedOut], [failure.type for failure in errors])
        self.assertEqual(6, TimedOut.exit_code)

    def test_seed_of_what_is_not_there(self):
        """``seed`` fetches nothing: it fails and names the path."""
        made = one_file()
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        station = Station.at(world, "10.0.1.1")
        errors = failures_of(foreground(station, made, bootstrap, seed_only=True).run())
        world.run_until(lambda: errors)
        self.assertEqual([StorageError], [failure.type for failure in errors])
        self.assertIn(f"{DATA}/file.bin is not there or not complete", str(errors[0].value))
        self.assertFalse(station.holds(made))

    def test_port_in_use(self):
        """A port that is taken is refused with a sentence that says what to do."""
        made = one_file()
        world = lan()
        station = Station.at(world, "10.0.1.1")
        station.run()
        caught = self.assertRaises(ConfigurationError, foreground(station, made).run)
        self.assertIn("7667: the port is in use; choose another --port", str(caught))

    def test_interrupt_stops_cleanly(self):
        """A shutdown of the process syncs and closes everything first."""
        made = content({"model.bin": 200 * PIECE})
        world = lan()
        world.link(delay=(0.001, 0.003), bandwidth=500_000)
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        running = foreground(leech, made, bootstrap).run()
        world.run(3)
        leech.host.reactor.fireSystemEvent("shutdown")
        world.run(3)
        self.assertEqual(0, leech.disk.open_handles)
        self.assert_waiting(running)

    def test_interrupt_while_it_ends(self):
        """An interrupt during the last clean-up waits for it, and does not begin it again."""
        made = content({"model.bin": 30 * PIECE})
        world = lan()
        leech = Station.at(world, "10.0.1.1")
        ended = failures_of(foreground(leech, made, timeout_s=1.0).run())
        leech.host.workers.delay = (2.0, 2.0)
        world.run(1.1)
        down = leech.host.reactor.fireSystemEvent("shutdown")
        self.assert_waiting(down)
        world.wait_for(down)
        self.assertEqual([], leech.host.leaks())
        self.assertEqual([NoPeersFound], [failure.type for failure in ended])


class OptionTests(TestCase):
    """What the command line means."""

    def test_reads_files_and_links(self):
        """A ``p2pdist:`` link is read as a link, anything else as a file."""
        link = f"p2pdist:b3:{'ab' * 32}?n=10.0.0.5"
        descriptor = read_descriptor(link)
        self.assertEqual(HashKey(b"\xab" * 32), descriptor.hash_key)
        path = self.mktemp()
        Path(path).write_text(evolve(descriptor, name="x").to_toml())
        self.assertEqual("x", read_descriptor(path).name)
        self.assertRaises(DescriptorError, read_descriptor, path + ".none")

    def test_limits(self):
        """``--upload-limit`` and ``--download-limit`` reach the settings, if they are speeds."""

        def rates(**options: str) -> RateLimits:
            return make_config(
                directory=".", port=0, listen=(), nodes=(), state_dir=None, no_lan=True, **options
            ).rates

        self.assertEqual(RateLimits(), rates())
        self.assertEqual(
            RateLimits(upload=limits.MIB, download=limits.GIB),
            rates(upload_limit="1MB", download_limit="1GiB"),
        )
        for option in ("upload_limit", "download_limit"):
            error = self.assertRaises(ConfigurationError, rates, **{option: "x"})
            self.assertIn(f"--{option.replace('_', '-')} 'x'", str(error))

    def test_what_receivers_type(self):
        """The link as it is, with this machine's addresses where it names no node."""
        link = f"p2pdist:b3:{'ab' * 32}"
        named, bare = read_descriptor(f"{link}?n=10.0.0.5"), read_descriptor(link)
        own = tuple(f"10.0.0.{number}" for number in range(9))
        found = receiver_command("x", named, 7000, (), own)
        self.assertEqual(f"p2pdist get '{link}?n=10.0.0.5:7667'", found)
        found = receiver_command("x", bare, 7000, (), own)
        self.assertEqual(limits.OWN_ADDRESSES_TOLD, found.count("n=10.0.0."))
        self.assertIn("n=10.0.0.0:7000", found)
        self.assertIn("n=[::1]:7000", receiver_command("x", bare, 7000, ("::1",), own))
        self.assertIn("n=10.0.0.0:7000", receiver_command("x", bare, 7000, ("0.0.0.0",), own))

    def test_what_receivers_of_a_private_content_type(self):
        """The descriptor's file, for no link has the secret; and where this machine is."""
        private = evolve(read_descriptor(f"p2pdist:b3:{'ab' * 32}"), secrets=(Secret(bytes(32)),))
        found = receiver_command("/srv/my model.desc", private, 7000, ("10.0.0.1",), ())
        self.assertEqual("p2pdist get 'my model.desc' --node 10.0.0.1:7000", found)

    def test_what_receivers_of_a_secret_file_type(self):
        """Who was given ``--secret-file`` tells the others to give it too."""
        link = f"p2pdist:b3:{'ab' * 32}"
        private = evolve(read_descriptor(link), secrets=(Secret(bytes(32)),))
        found = receiver_command(link, private, 7000, (), ("10.0.0.1",), "/etc/my.secret")
        self.assertEqual(f"p2pdist get '{link}?n=10.0.0.1:7000' --secret-file my.secret", found)

    def test_listen_is_checked(self):
        """``--listen`` takes IP addresses only."""

        def listen(*addresses: str) -> tuple[str, ...]:
            config = make_config(
                directory=".", port=0, listen=addresses, nodes=(), state_dir=None, no_lan=True
            )
            return config.listen

        self.assertEqual(("::1",), listen("::1", "::1"))
        for wrong in ("lo", "239.1.2.3", "10.0.0.256"):
            self.assertRaises(ConfigurationError, listen, wrong)
