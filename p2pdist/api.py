"""The library: hand out a file, fetch one, and watch a swarm, from any Twisted program.

::

    swarm = await distribute(reactor, "model.bin", Config(port=7667), nodes=["10.0.0.5:7667"])
    Path("model.desc").write_text(swarm.descriptor.to_toml())

    path = await fetch(reactor, "model.desc", Config(directory="downloads", port=0))

Job: a few Deferreds around :class:`~p2pdist.service.P2PDistService`, which does all the work; who
wants many contents in one node, or a child of an application's service, uses that class itself.
Blocking work is done in threads, so nothing here stops the reactor. Every error is one of
:mod:`p2pdist.errors`, or CancelledError. Does NOT print, log progress or read options. Tests:
``test_api``, ``test_e2e_docs``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, TypeAlias

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from p2pdist import limits
from p2pdist.addresses import HostPort, parse_host_port
from p2pdist.config import Config, absolute
from p2pdist.content import default_piece_length
from p2pdist.descriptor import URI_SCHEME, Descriptor, DescriptorParser
from p2pdist.errors import ConfigurationError
from p2pdist.fleet import Host
from p2pdist.logs import new_logger
from p2pdist.machine import Machine, real_machine
from p2pdist.secret import Secret
from p2pdist.service import P2PDistService
from p2pdist.session import Session
from p2pdist.source import build_metadata, scan
from p2pdist.standing import SessionStatus
from p2pdist.swarm.throttle import RateLimits

__all__ = ["Config", "RateLimits", "Swarm", "distribute", "fetch"]

What: TypeAlias = "Descriptor | str | os.PathLike[str]"
"""A parsed descriptor, the path of its file, or a ``p2pdist:`` link."""

OnProgress: TypeAlias = Callable[[SessionStatus], object]
"""Told how it stands, in the reactor's thread. What it raises is logged, and changes nothing."""

machine_of: Callable[[Any], Machine] = cache(real_machine)
"""Return the seams of a reactor, always the same: its worker threads are shared by all swarms."""

log = new_logger()


@define(eq=False)
class Swarm:
    """One content at work in a node of its own. Made by :meth:`join` and :func:`distribute`.

    Attributes:
        descriptor: of the content. ``descriptor.to_toml()`` is the text of its file, secret
            included; ``descriptor.to_uri()`` the link, which never holds a secret.
    """

    descriptor: Descriptor
    _machine: Machine
    _service: P2PDistService
    _session: Session
    _on_progress: OnProgress | None = None
    _loop: LoopingCall = field(init=False)
    _trigger: Any = field(init=False, default=None)
    _counting: dict[Deferred[list[Host]], int] = field(init=False, factory=dict)

    @classmethod
    def join(
        cls,
        reactor: Any,
        what: What,
        config: Config,
        *,
        path: str | os.PathLike[str] | None = None,
        replace: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Deferred[Swarm]:
        """Start a node that fetches a content, or has it already, and then serves it.

        Args:
            reactor: the program's. When it shuts down, the swarm stops cleanly first.
            what: the content's descriptor.
            config: the node's settings: folder, port (0 takes any free one), rates and so on.
                Without a ``state_dir`` the node has a new identity each time and hashes anew what
                it finds on disk.
            path: an existing file or folder to serve, wherever it is; then nothing is fetched.
            replace: an existing target with other content may be replaced.
            on_progress: told every ``limits.PROGRESS_EVERY_S`` seconds until the swarm stops, and
                once more when the content is complete.

        Returns:
            Fires with the swarm once its ports are open. Fails with DescriptorError,
            AlreadyRunning, ConfigurationError or StorageError; then nothing is left behind.
            Cancelling it does the same.
        """
        return Deferred.fromCoroutine(
            cls._join(machine_of(reactor), what, config, path, replace, on_progress)
        )

    @classmethod
    async def _join(
        cls,
        machine: Machine,
        what: What,
        config: Config,
        path: str | os.PathLike[str] | None,
        replace: bool,
        on_progress: OnProgress | None,
    ) -> Swarm:
        descriptor = await _described(machine, what)
        service = P2PDistService(config, machine)
        try:
            session = service.add(
                descriptor,
                path=None if path is None else absolute(os.fspath(path)),
                replace=replace,
                seed_only=path is not None,
            )
            service.privilegedStartService()
            service.startService()
        except Exception:
            await service.stopService()  # it holds the state directory's lock
            raise
        swarm = cls(descriptor, machine, service, session, on_progress)
        swarm._begin()
        return swarm

    def _begin(self) -> None:
        reactor = self._machine.reactor
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor
        self._loop.start(limits.PROGRESS_EVERY_S, now=False)
        self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._shutdown)
        self._session.complete.addCallbacks(lambda _path: self._tick(), lambda _failure: None)

    def _tick(self) -> None:
        """Tell how it stands, and who waited for so many machines."""
        for waiting, machines in list(self._counting.items()):
            done = [host for host in self.hosts() if host.record.report.complete]
            if len(done) >= machines:
                del self._counting[waiting]
                waiting.callback(done)
        if self._on_progress is not None:
            try:
                self._on_progress(self.status())
            except Exception:  # noqa: BLE001 -- theirs may be any
                log.failure("on_progress failed")

    @property
    def port(self) -> int:
        """UDP and TCP port number of the node."""
        return self._service.port

    @property
    def complete(self) -> Deferred[str]:
        """A Deferred of the caller's own, at any time, also after the end.

        Fires with the content's path once every piece is here and verified. Fails with what only
        an operator can mend (StorageError, DescriptorError, ContentConflict and so on), or with
        NodeStopped. Cancelling it stops nothing but the waiting.
        """
        return self._session.complete

    def status(self) -> SessionStatus:
        """Return how it stands: stage, bytes, rates, peers, and what it waits for, in words."""
        return self._session.status()

    def hosts(self) -> list[Host]:
        """Return what is known of every machine in the swarm, this one too, stragglers first."""
        return self._session.fleet.hosts()

    def done(self, machines: int) -> Deferred[list[Host]]:
        """Wait until so many machines have the whole content: this one, others, any that left.

        In a public swarm anybody can pretend to be one; compare names where that matters.

        Args:
            machines: 1 or more.

        Returns:
            Fires with those that are done, once there are enough; looked at every
            ``limits.PROGRESS_EVERY_S`` seconds. Fails with CancelledError when the swarm stops.
        """
        waiting: Deferred[list[Host]] = Deferred(self._counting.__delitem__)
        self._counting[waiting] = machines
        return waiting

    def set_limits(self, rates: RateLimits) -> None:
        """Change what the node may move per second, from now on."""
        self._service.set_limits(rates)

    def stop(self) -> Deferred[None]:
        """Leave the swarm: goodbyes, files, ports. Again is fine; what is on disk stays.

        Returns:
            Fires when nothing of the node is left, within about ``limits.STOP_S`` seconds; never
            fails.
        """
        if self._loop.running:
            self._loop.stop()
            if self._trigger is not None:
                self._machine.reactor.removeSystemEventTrigger(self._trigger)
                self._trigger = None
            for waiting in list(self._counting):
                waiting.cancel()
        return self._service.stopService()

    def _shutdown(self) -> Deferred[None]:
        self._trigger = None  # it is being called
        return self.stop()


def fetch(
    reactor: Any,
    what: What,
    config: Config,
    *,
    replace: bool = False,
    on_progress: OnProgress | None = None,
) -> Deferred[str]:
    """Fetch a content, and leave its swarm when it is complete and verified.

    Who goes on serving it helps the others: that is :meth:`Swarm.join`, then ``complete``.

    Args:
        reactor: the program's, as :meth:`Swarm.join` takes it; likewise all that follow.
        what: the content's descriptor.
        config: the node's settings.
        replace: an existing target with other content may be replaced.
        on_progress: told every ``limits.PROGRESS_EVERY_S`` seconds, and when it is complete.

    Returns:
        Fires with the path after a clean stop; fails with what :meth:`Swarm.join` and
        :attr:`Swarm.complete` fail with. It waits for peers for ever: ``addTimeout`` ends that.
        Cancelling stops cleanly, keeps what is there for the next try, then fails with
        CancelledError.
    """

    async def work() -> str:
        swarm = await Swarm.join(reactor, what, config, replace=replace, on_progress=on_progress)
        try:
            return await swarm.complete
        finally:
            await swarm.stop()

    return Deferred.fromCoroutine(work())


def distribute(
    reactor: Any,
    path: str | os.PathLike[str],
    config: Config,
    *,
    nodes: Iterable[HostPort | str] = (),
    name: str | None = None,
    private: bool = False,
    on_hashed: Callable[[int, int], object] | None = None,
    on_progress: OnProgress | None = None,
) -> Deferred[Swarm]:
    """Make the descriptor of a file or folder, and serve it.

    It is read twice: to name it, and to check what is served.

    Args:
        reactor: the program's, as :meth:`Swarm.join` takes it.
        path: of the file or folder.
        config: the node's settings.
        nodes: machines that others ask first, as ``"host:port"``; normally this one's address with
            the port in ``config``. Without any, machines find each other on one local network only.
        name: what to call the content, instead of its own name.
        private: make a secret; only who has the descriptor can then take part.
        on_hashed: told bytes hashed and bytes in all, every ``limits.PROGRESS_EVERY_S`` seconds.
        on_progress: told as often how it stands, as soon as there is a swarm and until it stops.

    Returns:
        Fires with a swarm that is checked and being served. Fails as :meth:`Swarm.join`, and with
        UnsafeName for a name that receivers would refuse. Cancelling leaves nothing behind.
    """

    async def work() -> Swarm:
        machine = machine_of(reactor)
        descriptor = await _describe(machine, path, name, on_hashed)
        descriptor = evolve(
            descriptor,
            nodes=tuple(dict.fromkeys(map(_node, nodes))),
            secrets=(Secret.new(secrets.token_bytes),) if private else (),
        )
        swarm = await Swarm.join(reactor, descriptor, config, path=path, on_progress=on_progress)
        try:
            await swarm.complete
        except Exception:
            await swarm.stop()
            raise
        return swarm

    return Deferred.fromCoroutine(work())


async def _described(machine: Machine, what: What) -> Descriptor:
    """Return the descriptor that is meant; files are read in a thread."""
    if isinstance(what, Descriptor):
        return what
    text = os.fspath(what)
    if text.startswith(URI_SCHEME):
        return DescriptorParser().parse_uri(text)
    return await machine.workers.run(partial(DescriptorParser().parse_file, text))


async def _describe(
    machine: Machine,
    path: str | os.PathLike[str],
    name: str | None,
    on_hashed: Callable[[int, int], object] | None,
) -> Descriptor:
    """Hash a file or folder on all cores; a cancel ends the threads within a piece."""
    hashed = (0, 0)
    cancelled = False

    def note(done: int, total: int) -> None:
        nonlocal hashed
        hashed = (done, total)
        if cancelled:
            raise CancelledError

    def work() -> Descriptor:
        source = scan(os.fspath(path), name)
        metadata = build_metadata(
            source,
            default_piece_length(source.length),
            progress=note,
            threads=os.cpu_count() or 1,
        )
        return Descriptor(
            hash_key=metadata.hash_key(),
            name=metadata.name,
            length=metadata.length,
            piece_length=metadata.piece_length,
        )

    loop = LoopingCall(lambda: None if on_hashed is None else on_hashed(*hashed))
    loop.clock = machine.reactor
    loop.start(limits.PROGRESS_EVERY_S, now=False).addErrback(
        partial(log.failure, "on_hashed failed")
    )
    try:
        return await machine.workers.run(work)
    except CancelledError:
        cancelled = True
        raise
    finally:
        if loop.running:
            loop.stop()


def _node(entry: HostPort | str) -> HostPort:
    """Return a node of a descriptor.

    Raises:
        ConfigurationError: it is no ``host:port``.
    """
    if isinstance(entry, HostPort):
        return entry
    try:
        return parse_host_port(entry)
    except ValueError as error:
        raise ConfigurationError(f"nodes: {error}") from error
