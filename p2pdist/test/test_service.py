"""The service hierarchy: ports, state, several contents, embedding, and stopping cleanly."""

from __future__ import annotations

import errno
from typing import Any

from attrs import evolve
from twisted.application.service import IServiceCollection
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from p2pdist import limits, ports
from p2pdist.config import Config
from p2pdist.errors import AlreadyRunning, ConfigurationError
from p2pdist.ids import HashKey
from p2pdist.keys import PUBLIC_NETWORK
from p2pdist.neighbours import decode
from p2pdist.overlay.bootstrap import EntryState
from p2pdist.overlay.node import Node
from p2pdist.service import P2PDistService
from p2pdist.session import Session
from p2pdist.stages import Stage
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import PIECE, STATE, content, one_file
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan, swarm


class HierarchyTests(TestCase):
    """What is in the service, and when it does what."""

    def test_children(self):
        """Node, contents and upkeep are children, so that an application can find them."""
        station = Station.at(lan(), "10.0.0.1")
        service = station.run()
        names = [type(child).__name__ for child in IServiceCollection(service)]
        self.assertEqual(["NodeService", "TransferService", "UpkeepService"], names)

    def test_stop_leaves_nothing(self):
        """After stopService there is no delayed call, no port, no open file; twice is fine."""
        made = one_file()
        world = lan()
        bootstrap, seed, leeches = swarm(world, made, 2)
        world.run(5)
        for station in (bootstrap, seed, *leeches):
            service = station.service
            assert service is not None
            station.stop()
            self.assertEqual(0, station.disk.open_handles)
            world.wait_for(service.stopService())
        world.run(60)

    def test_stop_at_any_moment(self):
        """A node may be stopped while it checks, resolves, finds, joins or leeches."""
        made = content({"model.bin": 40 * PIECE})
        for milliseconds in (0, 1, 2, 4, 6, 8, 10, 12, 15, 20, 30, 50, 80):
            world = lan(2)
            bootstrap, seed, (leech,) = swarm(world, made, 1)
            world.run(milliseconds / 1000)
            leech.stop()
            self.assertEqual(0, leech.disk.open_handles)
            seed.stop()
            bootstrap.stop()

    def test_descriptor_added_while_running(self):
        """A content added to a running service is fetched like any other."""
        made = one_file()
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        service = leech.run()
        world.run(3)
        session = service.add(pointing(made, bootstrap))
        world.run_until(lambda: session.stage is Stage.SEEDING)

    def test_stop_that_hangs_is_cut_short(self):
        """A disk that does not answer delays the stop by ``limits.STOP_S`` at most."""
        made = content({"model.bin": 60 * PIECE})
        world = lan()
        world.link(delay=(0.001, 0.003), bandwidth=1_000_000)
        _, _, (leech,) = swarm(world, made, 1)
        world.run_until(lambda: leech.session.transfer.progress().have_pieces > 5)
        leech.host.workers.delay = (1000.0, 1000.0)
        service = leech.service
        assert service is not None
        began = world.now
        world.wait_for(service.stopService())
        self.assertLess(world.now - began, limits.STOP_S + 1)
        world.run(5000)  # the disk answers after all, and nobody minds

    def test_content_is_hailed_on_the_local_network(self):
        """A content added later is told to the LAN within LAN_SOON_S, and found without nodes."""
        made = one_file()
        world = lan()
        seed, leech = Station.at(world, "10.0.0.1"), Station.at(world, "10.0.0.2")
        seed.store(made)
        leech.run(pointing(made), lan=True, listen=())
        service = seed.run(lan=True, listen=())
        world.run(60)
        service.add(pointing(made))
        world.run_until(lambda: leech.holds(made), timeout=limits.LAN_SOON_S + 5)
        for station in (seed, leech):
            station.stop()

    def test_same_content_twice_is_one_session(self):
        """A second descriptor of the same content only adds its nodes."""
        made = one_file()
        station = Station.at(lan(), "10.0.0.1")
        service = station.run(pointing(made, "10.0.0.8"), pointing(made, "10.0.0.9"))
        (session,) = service.contents.sessions.values()
        self.assertEqual(["10.0.0.8", "10.0.0.9"], [entry.host for entry in session.nodes])

    def test_two_contents_for_one_target_are_refused(self):
        """Two different contents of the same name cannot share a folder."""
        made = one_file()
        other = evolve(pointing(made), hash_key=HashKey(b"o" * 32), source="other.desc")
        station = Station.at(lan(), "10.0.0.1")
        service = station.run(pointing(made))
        error = self.assertRaises(ConfigurationError, service.add, other)
        self.assertIn("other.desc and test.desc", str(error))
        self.assertIn("file.bin", str(error))

    def test_number_of_descriptors_is_bounded(self):
        """One process takes ``limits.DESCRIPTORS`` contents and refuses the next."""
        self.patch(limits, "DESCRIPTORS", 2)
        service = Station.at(lan(), "10.0.0.1").run()
        for number in range(3):
            named = evolve(
                pointing(one_file()), hash_key=HashKey(bytes([number]) * 32), name=f"{number}"
            )
            if number < 2:
                service.add(named)
            else:
                self.assertRaises(ConfigurationError, service.add, named)

    def test_lifecycle_log_is_short(self):
        """A whole download logs fewer than 20 lines that people see."""
        made = content({"model.bin": 60 * PIECE})
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        with capturedLogs() as events:
            leech.run(pointing(made, bootstrap))
            world.run_until(lambda: leech.session.stage is Stage.SEEDING)
            leech.stop()
        ours = [
            event
            for event in events
            if event["log_namespace"].startswith("p2pdist.") and event["log_level"] >= LogLevel.info
        ]
        self.assertLess(len(ours), 20)
        texts = [event["log_format"] for event in ours]
        for expected in ("listens on", "looking for peers", "first peer", "complete and verified"):
            self.assertTrue(any(expected in text for text in texts), expected)


class UpkeepTests(TestCase):
    """What is done every few seconds."""

    def test_a_bug_in_one_session_stops_nothing_else(self):
        """An error in one content's upkeep is logged; everything else is kept up."""
        station = Station.at(lan(), "10.0.0.1")
        station.run(pointing(one_file()), state_dir=None)

        def broken(_session: Session) -> None:
            raise ZeroDivisionError("a bug")

        self.patch(Session, "upkeep", broken)
        ticks: list[Node] = []

        def tick(node: Node) -> None:
            ticks.append(node)

        self.patch(Node, "upkeep", tick)
        station.host.world.run(3 * limits.UPKEEP_EVERY_S + 1)
        self.assertEqual(3, len(ticks))
        self.assertEqual(3, len(self.flushLoggedErrors(ZeroDivisionError)))


class PortTests(TestCase):
    """UDP and TCP under one number."""

    def test_any_free_port_is_the_same_for_both(self):
        """Port 0 takes one number that is free for UDP and TCP."""
        station = Station.at(lan(), "10.0.0.1")
        service = station.run(port=0)
        self.assertNotEqual(0, service.port)
        self.assertEqual(
            {service.port},
            {socket.port for socket in (*station.host.udp, *station.host.tcp)},
        )

    def test_port_in_use_is_said_and_released(self):
        """A taken port is named with a way out, and nothing stays open."""
        station = Station.at(lan(), "10.0.0.1")
        station.host.reactor.listenTCP(limits.DEFAULT_PORT, Factory(), interface="0.0.0.0")
        service = P2PDistService(Config(listen=("0.0.0.0",), lan=False), station.machine)
        error = self.assertRaises(ConfigurationError, service.bind)
        self.assertIn("the port is in use", str(error))
        station.host.world.run(1)
        self.assertEqual([], list(station.host.udp))

    def test_junk_cannot_starve_tcp(self):
        """A turn reads ``limits.UDP_READ_DATAGRAMS``, also of empty ones, and the next reads on."""
        world = lan()
        station = Station.at(world, "10.0.0.1")
        dropped = station.run().overlay.node.dropped
        world.run(1)
        station.host.pause()
        port: Any = world.host("10.0.0.2").reactor.listenUDP(0, DatagramProtocol())
        for _ in range(3 * limits.UDP_READ_DATAGRAMS):
            port.write(b"", ("10.0.0.1", limits.DEFAULT_PORT))
        world.run(1)
        station.host.resume()
        read: list[int] = []
        while sum(read) < 3 * limits.UDP_READ_DATAGRAMS:
            before = dropped["datagram-short"]
            world.step()
            read.append(dropped["datagram-short"] - before)
        self.assertEqual([limits.UDP_READ_DATAGRAMS] * 3, [count for count in read if count])

    def read_until_it_stops(self, port: Any) -> None:
        """Let callers come."""
        while port.reading:
            port.doRead()

    def test_callers_are_accepted_one_by_one(self):
        """A turn accepts one caller, not all that wait; too many a second wait in the kernel."""
        reads: list[int] = []

        class Waiting:
            numberAccepts = 100
            reading = True

            def doRead(self) -> None:
                reads.append(self.numberAccepts)

            def stopReading(self) -> None:
                self.reading = False

            def startReading(self) -> None:
                self.reading = True

        port, clock = Waiting(), Clock()
        entrance = ports._Entrance(port, clock)
        per_second, burst = limits.RATE_ACCEPTS
        self.read_until_it_stops(port)
        self.assertEqual([1] * int(burst), reads)
        clock.advance(limits.ACCEPT_PAUSE_S)
        self.read_until_it_stops(port)
        self.assertEqual(int(burst + per_second * limits.ACCEPT_PAUSE_S), len(reads))
        entrance.close()
        self.assertEqual([], clock.getDelayedCalls())

    def test_address_of_another_machine(self):
        """An address this machine does not have is refused with a reason."""
        station = Station.at(lan(), "10.0.0.1")
        service = P2PDistService(Config(listen=("10.9.9.9",), lan=False), station.machine)
        error = self.assertRaises(ConfigurationError, service.bind)
        self.assertIn("no such address", str(error))

    def test_too_many_addresses(self):
        """More than ``limits.SOCKETS`` addresses are refused, and nothing stays open."""
        self.patch(limits, "SOCKETS", 1)
        station = Station.at(lan(), "10.0.0.1", "10.0.0.2")
        service = P2PDistService(
            Config(listen=("10.0.0.1", "10.0.0.2"), lan=False), station.machine
        )
        self.assertRaises(ConfigurationError, service.bind)
        station.host.world.run(1)
        self.assertEqual([], [*station.host.udp, *station.host.tcp])

    def test_several_addresses(self):
        """``--listen`` may name several addresses; each gets both sockets."""
        station = Station.at(lan(), "10.0.0.1", "fd00::1")
        station.run(listen=("10.0.0.1", "fd00::1"))
        self.assertEqual((2, 2), (len(list(station.host.udp)), len(list(station.host.tcp))))
        station.stop()

    def test_machine_without_ipv6(self):
        """Without ``--listen`` a machine without IPv6 listens on IPv4."""
        station = Station.at(lan(), "10.0.0.1")
        reactor = station.host.reactor
        real = reactor.listenUDP

        def no_ipv6(port, protocol, interface="", **more):
            if ":" in interface:
                raise CannotListenError(
                    interface, port, OSError(errno.EAFNOSUPPORT, "no IPv6 here")
                )
            return real(port, protocol, interface=interface, **more)

        self.patch(reactor, "listenUDP", no_ipv6)
        station.run(listen=())
        self.assertEqual(
            {"0.0.0.0"}, {port.getHost().host for port in station.host.reactor.getReaders()}
        )


class StateTests(TestCase):
    """What is kept between runs."""

    def test_state_directory_is_locked(self):
        """A second service on the same state directory is refused."""
        station = Station.at(lan(), "10.0.0.1")
        station.run()
        self.assertRaises(AlreadyRunning, P2PDistService, Config(state_dir=STATE), station.machine)

    def test_node_key_stays(self):
        """A node keeps its id over restarts, and has a new one without state directory."""
        station = Station.at(lan(), "10.0.0.1")
        first = station.run().overlay.node.key.node_id
        station.stop()
        self.assertEqual(first, station.run().overlay.node.key.node_id)
        station.stop()
        self.assertNotEqual(first, station.run(state_dir=None).overlay.node.key.node_id)

    def test_neighbours_and_peers_are_saved(self):
        """Neighbours and joined peers are saved every ten minutes, and at the end."""
        made = one_file()
        world = lan()
        bootstrap, seed, (leech,) = swarm(world, made, 1)
        world.run_until(lambda: leech.session.stage is Stage.SEEDING)
        world.run(limits.SAVE_EVERY_S + 10)
        saved = decode(leech.disk.get(f"{STATE}/neighbours"))[PUBLIC_NETWORK.tag]
        hosts = [entry.host for entry in saved.neighbours]
        self.assertIn(bootstrap.address.host, hosts)
        self.assertEqual((seed.address,), saved.peers[made.hash_key])
        leech.disk.remove(f"{STATE}/neighbours")
        leech.stop()
        again = decode(leech.disk.get(f"{STATE}/neighbours"))
        self.assertEqual({PUBLIC_NETWORK.tag: saved}, again)

    def test_damaged_neighbours_file_is_no_trouble(self):
        """A damaged file of neighbours counts as empty."""
        station = Station.at(lan(), "10.0.0.1")
        station.run()
        station.stop()
        station.disk.put(f"{STATE}/neighbours", b"{[", mode=0o600)
        station.run()
        station.stop()

    def test_own_address_among_the_nodes(self):
        """A node that finds itself in its descriptor says so, and asks itself no more."""
        made = one_file()
        world = lan()
        seed = Station.at(world, "10.0.0.2")
        seed.store(made)
        seed.run(pointing(made, seed))
        world.run(1)
        (report,) = seed.session.status().nodes
        self.assertIs(EntryState.SELF, report.state)
        count, events = len(world.trace), world.events
        world.run(100)
        self.assertLess(world.events - events, 1000, "no timer runs every limits.TIMER_GRAIN_S")
        sent = [record for record in world.trace[count:] if record.kind == "udp"]
        self.assertEqual([], sent)
