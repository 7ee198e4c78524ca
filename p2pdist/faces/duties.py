"""What ``twistd p2pdist`` does beside serving: wires ``daemon`` to service, process and signals.

Job: check the options of it, build what they ask for. Tests: ``test_duties``, ``test_e2e``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from attrs import frozen

from p2pdist.daemon.goals import Ending, Goal, parse_goal
from p2pdist.daemon.hooks import Hooks, parse_command
from p2pdist.daemon.notify import Notifying, supervisor_of_process
from p2pdist.daemon.watching import Watching
from p2pdist.errors import ConfigurationError
from p2pdist.faces.process import end_with, on_hangup, patient_once
from p2pdist.faces.rereading import Asked, Rereading
from p2pdist.machine import Machine
from p2pdist.service import P2PDistService


@frozen
class Duties:
    """What the options ask for.

    Attributes:
        watch: folder of descriptors, from the root.
        on_complete: words of the command.
        exit_when: goal of the process.
    """

    watch: str | None = None
    on_complete: tuple[str, ...] = ()
    exit_when: Goal | None = None


def read_duties(watch: str | None, on_complete: str | None, exit_when: str | None) -> Duties:
    """Return what these options ask for.

    Raises:
        ConfigurationError: one cannot be done.
    """
    if watch is not None and not os.path.isdir(watch):  # noqa: PTH112 -- text
        raise ConfigurationError(f"--watch {watch!a}: no such folder; make it first")
    return Duties(
        watch=None if watch is None else os.path.abspath(watch),  # noqa: PTH100 -- keeps links
        on_complete=() if on_complete is None else parse_command(on_complete),
        exit_when=None if exit_when is None else parse_goal(exit_when),
    )


def take_up(duties: Duties, service: P2PDistService, asked: Asked, machine: Machine) -> None:
    """Add to the service what is asked for, and listen for signals."""
    reactor = machine.reactor
    contents = service.contents
    watching = Watching(contents, asked.parser, machine.workers, reactor, duties.watch)
    again = Rereading(asked, service, watching, machine.workers)
    watching.rates_of = again.rates_of
    for descriptor in asked.descriptors:
        watching.took(descriptor.source, descriptor)
    watching.setServiceParent(service)
    hooks: Sequence[Hooks] = ()
    if duties.on_complete:
        hooks = (Hooks(duties.on_complete, contents, machine, service.state),)
        hooks[0].setServiceParent(service)
    if duties.exit_when is not None:
        Ending(
            duties.exit_when,
            contents,
            reactor,
            lambda code: end_with(reactor, code),
            busy=lambda: not all(hook.idle for hook in hooks),
            failed=lambda: any(hook.failures for hook in hooks),
        ).setServiceParent(service)
    supervisor = supervisor_of_process()
    patient_once(reactor)
    if supervisor is None:
        on_hangup(reactor, again.reload)
    else:
        telling = Notifying(supervisor, contents, machine)
        telling.setServiceParent(service)
        on_hangup(reactor, lambda: telling.reloading(again.reload))
