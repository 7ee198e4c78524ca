"""``p2pdist demo``: the whole thing on one machine, with real ``twistd`` processes on loopback.

Job: make a file, start a bootstrap node that holds nothing, one seed and some downloaders, show
how far each is, compare every copy byte by byte, stop everything. Tests: ``test_e2e``.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from attrs import define, field
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import HostPort
from p2pdist.content import default_piece_length
from p2pdist.descriptor import Descriptor
from p2pdist.errors import P2PDistError, StorageError
from p2pdist.faces.cli.output import (
    Output,
    board,
    format_bytes,
    format_rate,
    parse_size,
    reports_errors,
)
from p2pdist.faces.process import run_until_done
from p2pdist.machine import Machine
from p2pdist.source import build_metadata, scan

FILE_NAME = "demo.bin"
DEADLINE_S = 300.0
_PORT = re.compile(r"UDP and TCP port (\d+)")
_PERCENT = re.compile(r": (\d+) %, ")
_SEEDING = re.compile(r"is complete at |complete and verified after ")


class DemoFailed(P2PDistError):
    """Something in the demonstration went wrong."""


class TwistdProcess(ProcessProtocol):
    """One ``twistd p2pdist`` process, followed by what it logs.

    Args:
        name: for people.
        folder: for downloads; the log is ``NAME.log`` beside it.

    Attributes:
        percent: of the content, as its log says.
        listening: fires with the port number.
        complete: fires when it seeds.
        ended: fires when the process is gone.
        exit_code: then; minus the number of the signal that ended it, if one did.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.percent = 0
        self.listening: Deferred[int] = Deferred()
        self.complete: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.exit_code: int | None = None
        self._log_path = folder.with_name(f"{name}.log")
        self._log = self._log_path.open("ab")
        self._rest = b""

    def start(self, reactor: object, *options: str) -> None:
        """Start twistd with these options and those every process of the demo has."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = str(self.folder.with_name(f"{self.name}.state"))
        code = "from twisted.scripts.twistd import run; run()"
        argv = [sys.executable, "-c", code, "-n", "--pidfile=", "p2pdist", "--listen", "127.0.0.1"]
        argv += ["--port", "0", "--directory", str(self.folder), "--state-dir", state, *options]
        environment = dict(os.environ)
        root = str(Path(__file__).resolve().parents[3])
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [root, environment.get("PYTHONPATH")])
        )
        reactor.spawnProcess(self, sys.executable, argv, environment)  # type: ignore[attr-defined]

    def outReceived(self, data: bytes) -> None:
        """Keep the log, and read in it."""
        self._log.write(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._read(line.decode(errors="replace"))

    errReceived = outReceived

    def _read(self, line: str) -> None:
        port = _PORT.search(line)
        percent = _PERCENT.search(line)
        if port is not None and not self.listening.called:
            self.listening.callback(int(port[1]))
        elif percent is not None:
            self.progressed(int(percent[1]))
        elif _SEEDING.search(line) and not self.complete.called:
            self.progressed(100)
            self.complete.callback(None)

    def progressed(self, percent: int) -> None:
        """Note how far the log says it is."""
        self.percent = percent

    def processEnded(self, reason: Failure) -> None:
        """Whoever waits for it learns that it ended too soon."""
        ended_by = getattr(reason.value, "signal", None)
        self.exit_code = getattr(reason.value, "exitCode", None) if ended_by is None else -ended_by
        self._log.close()
        gone = DemoFailed(f"{self.name} ended too soon; see {self._log_path}")
        waiting: list[Deferred[Any]] = [self.listening, self.complete]
        for waited in waiting:
            if not waited.called:
                waited.errback(gone)
                waited.addErrback(lambda _failure: None)  # the first to wait has been told
        self.ended.callback(None)

    def stop(self) -> Deferred[None]:
        """Ask it to stop; fires when it is gone, at once if it never ran."""
        gone: Deferred[None] = Deferred()
        if self.transport is None:
            gone.callback(None)
            return gone
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("TERM")
        self.ended.addCallback(gone.callback)
        return gone


@define(eq=False)
class Demo:
    """The demonstration.

    Args:
        machine: seams.
        folder: where everything goes.
        size: bytes of the file.
        count: downloaders.
        say: prints a line.
        show: shows how far all are, about once a second.
    """

    machine: Machine
    folder: Path
    size: int
    count: int
    say: Callable[[str], None]
    show: Callable[[list[tuple[str, int]]], None]
    _processes: list[TwistdProcess] = field(init=False, factory=list)

    def run(self) -> Deferred[float]:
        """Run; fires with the seconds from the first downloader's start to the last copy.

        Fails with :class:`DemoFailed` or StorageError. In the end no process is left.
        """
        self.machine.reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        done = Deferred.fromCoroutine(self._run())
        done.addTimeout(
            DEADLINE_S,
            self.machine.reactor,
            lambda _result, seconds: Failure(DemoFailed(f"not done after {seconds:g} s")),
        )
        return Deferred.fromCoroutine(self._then_stop(done))

    async def _then_stop(self, done: Deferred[float]) -> float:
        try:
            return await done
        finally:
            await self._stop()

    def _stop(self) -> Deferred[list[None]]:
        return gatherResults([process.stop() for process in self._processes])

    def _process(self, name: str) -> TwistdProcess:
        process = TwistdProcess(name, self.folder / name)
        self._processes.append(process)
        return process

    async def _run(self) -> float:
        seed_folder = self.folder / "seed"
        await self.machine.workers.run(lambda: _make_file(seed_folder / FILE_NAME, self.size))
        self.say(f"made {FILE_NAME}, {format_bytes(self.size)} of random bytes")
        bootstrap = self._process("bootstrap")
        bootstrap.start(self.machine.reactor)
        port = await bootstrap.listening
        self.say(f"bootstrap node on port {port}; it holds nothing and wants nothing")
        descriptor = await self.machine.workers.run(
            lambda: _describe(seed_folder / FILE_NAME, port)
        )
        path = self.folder / "demo.desc"
        path.write_text(descriptor.to_toml())
        seed = self._process("seed")
        seed.start(self.machine.reactor, "--descriptor", str(path))
        await seed.complete
        self.say("the seed has checked its copy and is seeding")
        return await self._download(path, seed_folder / FILE_NAME)

    async def _download(self, descriptor: Path, original: Path) -> float:
        downloaders = [self._process(f"downloader-{number + 1}") for number in range(self.count)]
        started = self.machine.reactor.seconds()
        for process in downloaders:
            process.start(self.machine.reactor, "--descriptor", str(descriptor))
        waiting = gatherResults([process.complete for process in downloaders], consumeErrors=True)
        outcome: list[list[None] | Failure] = []
        waiting.addBoth(outcome.append)
        while not outcome:
            self.show([(process.name, process.percent) for process in downloaders])
            await self._pause(waiting)
        if isinstance(outcome[0], Failure):
            outcome[0].trap(FirstError)
            raise outcome[0].value.subFailure.value  # type: ignore[union-attr]
        seconds: float = self.machine.reactor.seconds() - started
        self.show([(process.name, process.percent) for process in downloaders])
        for process in downloaders:
            copy = process.folder / FILE_NAME
            same = await self.machine.workers.run(
                lambda copy=copy: filecmp.cmp(original, copy, shallow=False)  # type: ignore[misc]
            )
            if not same:
                raise DemoFailed(f"{copy} differs from the original")
            self.say(f"{process.name}: its copy equals the original")
        return seconds

    def _pause(self, waiting: Deferred[Any]) -> Deferred[None]:
        """Wait half a second, or until the downloads are over."""
        pause: Deferred[None] = Deferred()
        timer = self.machine.reactor.callLater(limits.PROGRESS_EVERY_S / 2, pause.callback, None)

        def over(result: object) -> object:
            if timer.active():
                timer.cancel()
                pause.callback(None)
            return result

        waiting.addBoth(over)
        return pause


def _make_file(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise StorageError(f"{path.parent} has {format_bytes(free)} free; choose a smaller --size")
    with open("/dev/urandom", "rb") as chance, path.open("wb") as file:  # noqa: PTH123 -- a device
        for start in range(0, size, limits.MIB):
            file.write(chance.read(min(limits.MIB, size - start)))


def _describe(path: Path, port: int) -> Descriptor:
    source = scan(str(path))
    metadata = build_metadata(
        source, default_piece_length(path.stat().st_size), progress=None, threads=2
    )
    return Descriptor(
        hash_key=metadata.hash_key(),
        nodes=(HostPort("127.0.0.1", port),),
        name=metadata.name,
        length=metadata.length,
        piece_length=metadata.piece_length,
        sha256=None,
        source="demo.desc",
    )


@click.command()
@click.option(
    "--size",
    type=parse_size,
    metavar="SIZE",
    default="256MiB",
    show_default=True,
    help="Of the file.",
)
@click.option(
    "--downloaders", type=click.IntRange(1, 32), default=4, show_default=True, help="How many."
)
@click.option(
    "--directory", type=click.Path(file_okay=False), help="Keep everything in this folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@reports_errors
def demo(*, size: int, downloaders: int, directory: str | None, as_json: bool) -> None:
    """Distribute a file from one process to several others on this machine, and compare.

    One seed, one bootstrap node that holds nothing and the downloaders run as real twistd
    processes on loopback and find each other as they would on a network.
    """
    output = Output(as_json)
    folder = Path(directory) if directory else Path(tempfile.mkdtemp(prefix="p2pdist-demo-"))
    if folder.exists() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty; choose another --directory")

    with board() as show:

        def work(machine: Machine) -> Deferred[float]:
            return Demo(machine, folder, size, downloaders, output.note, show).run()

        try:
            seconds = run_until_done(work)
        except DemoFailed:
            directory = str(folder)  # the message names a log there
            raise
        finally:
            if directory is None:
                shutil.rmtree(folder, ignore_errors=True)
    total = size * downloaders
    output.line(
        f"{downloaders} verified copies in {seconds:.1f} s from the start of their processes, "
        f"together {format_rate(total / seconds)}"
    )
    output.result(
        {"copies": downloaders, "length": size, "seconds": round(seconds, 3), "equal": True}
    )
