"""Tests of what twistd p2pdist does beside serving: its options, and how it is wired."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from p2pdist.daemon.goals import Ending, parse_goal
from p2pdist.daemon.hooks import Hooks
from p2pdist.daemon.watching import Watching
from p2pdist.errors import ConfigurationError
from p2pdist.faces.duties import Duties, read_duties, take_up
from p2pdist.faces.tap import Options
from p2pdist.test.servicesworld import Station
from p2pdist.test.storehouse import Content, one_file
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan


class Signals:
    """A simulated reactor that pretends to get signals, but asks for none."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.asked: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def callWhenRunning(self, *call: Any) -> None:
        """Note it only."""
        self.asked.append(call)

    def sigTerm(self, number: int, frame: Any) -> None:
        """Never called."""

    sigInt = sigTerm


def asked(made: Content) -> Options:
    """Return options as they are handed over."""
    options = Options()
    options.descriptors = [made.descriptor()]
    return options


class DutyTests(TestCase):
    """What is built."""

    def build(self, duties: Duties) -> tuple[list[type], Any]:
        """Return the kinds of services added, and the node's."""
        made = one_file()
        station = Station.at(lan(), "10.0.0.1")
        service = station.run(made.descriptor())
        before = list(service)
        machine = evolve(station.machine, reactor=Signals(station.machine.reactor))
        take_up(duties, service, asked(made), machine)
        self.assertEqual(2, len(machine.reactor.asked), "signals: to stop, to reload")
        return [type(one) for one in service if one not in before], service

    def test_nothing_asked(self):
        """Descriptors can be reloaded, and that is all."""
        kinds, service = self.build(Duties())
        self.assertEqual([Watching], kinds)
        (watching,) = (one for one in service if isinstance(one, Watching))
        self.assertEqual(["test.desc"], list(watching.files))

    def test_all_asked(self):
        """Each duty is a service; ending waits for the command."""
        duties = Duties(None, ("true",), parse_goal("done"))
        kinds, _ = self.build(duties)
        self.assertEqual([Watching, Hooks, Ending], kinds)

    def test_options(self):
        """Each option is checked before anything is built."""
        self.assertEqual(Duties(), read_duties(None, None, None))
        for wrong in (("none", None, None), (None, "", None), (None, None, "soon")):
            self.assertRaises(ConfigurationError, read_duties, *wrong)
