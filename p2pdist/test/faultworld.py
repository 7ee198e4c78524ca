"""A whole swarm of production services under a plan of faults, watched after every event.

Job: carry a :class:`~p2pdist.test.faultplan.Plan` out on simulated machines; then end the faults,
demand that everybody completes within :data:`HEAL_S`, stop everything and look for leftovers.
Does NOT draw the plan, and does not lie (``faultliars``). Tests: ``test_sim_faults``;
``tools/sweep.py`` explores new seeds.

Safety, after every event:

* each piece is in exactly one state, in the picker and between picker and store;
* a piece that becomes *have* is on the disk, byte for byte; so is every piece whose bit is trusted
  at a start, whatever the crash before left of the disk;
* no honest node was given a wrong byte by an honest one, and no liar either, unless the bytes had
  rotted on the disk after they were checked;
* a published content is right as programs see it and as a power failure would leave it;
* tables, budgets, connections and requests stay within their bounds;
* no datagram is longer than a path with the smallest MTU of IPv6, 1280 bytes, lets through;
* nothing is logged as an error of our own.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from attrs import define, evolve, field, frozen
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import HostPort
from p2pdist.descriptor import Descriptor
from p2pdist.errors import P2PDistError
from p2pdist.machine import Machine
from p2pdist.session import Session
from p2pdist.simulation.timeline import KERNEL
from p2pdist.stages import Stage
from p2pdist.swarm import masks
from p2pdist.test.faultliars import Crook
from p2pdist.test.faultplan import Fault, Plan, draw
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, _Power
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import DATA, PIECE, Content, content

HEAL_S: Final = 180.0
"""Simulated seconds after the last fault within which every downloader has a whole copy."""
RESTART_S: Final = 2.0
"""A process that ended by itself is started again after so long, as systemd does."""
BOOTSTRAP_NAME: Final = "boot.example"
_BOUNDS_EVERY: Final = 64


class Violation(AssertionError):
    """A promise was broken."""


@define(eq=False, repr=False)
class FaultyDisk(SimDisk):
    """A simulated disk that also fails by chance.

    Attributes:
        errors: chance that an operation fails with EIO.
        chance: draws it.
    """

    errors: float = 0.0
    chance: random.Random = field(factory=random.Random, kw_only=True)

    def _call(self, name: str, subject: object) -> None:
        self.calls.clear()  # nobody counts them here
        super()._call(name, subject)
        if self.errors and self.chance.random() < self.errors:
            raise OSError(errno.EIO, "Input/output error")

    def node_of(self, path: str) -> Any:
        """Return a file's inside, or ``None`` without such a file."""
        try:
            return self._find(path)
        except KeyError:
            return None

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return self.capacity - self._free()


@define(eq=False)
class FaultStation(Station):
    """A machine whose time of day can jump.

    Attributes:
        wall_jump: seconds its wall clock is wrong by.
        rotten: pieces whose bytes were damaged on the disk after they were checked.
        restarts: how often a process of it ended by itself.
    """

    disk: FaultyDisk = field(factory=FaultyDisk)
    wall_jump: float = 0.0
    rotten: set[int] = field(factory=set)
    restarts: int = 0

    @property
    def machine(self) -> Machine:
        """The seams of the present process."""
        seconds = self.host.reactor.seconds
        return evolve(super().machine, wall=lambda: 1e9 + seconds() + self.wall_jump)


@frozen
class Outcome:
    """How a run went.

    Attributes:
        seed: of it.
        completed_s: seconds from the last fault to the last copy; 0 if all were there by then.
        simulated_s: all of it.
        events: of the simulation.
        faults: what happened, by kind.
        mended: sessions an operator had to restart, since they had failed.
        trace_hash: the same in every run of the seed.
    """

    seed: int
    completed_s: float
    simulated_s: float
    events: int
    faults: Counter[str]
    mended: int
    trace_hash: str


class FaultWorld:
    """One plan, carried out.

    Args:
        plan: what to do; see :func:`~p2pdist.test.faultplan.draw`.

    Attributes:
        stations: the honest machines, in the order of the plan's numbers.
        made: the content.
        fetched: bytes of pieces that the last process of each machine received.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.world = World(plan.seed)
        self.made = self._content()
        self.stations = [self._station(number) for number in range(plan.machines)]
        self.crooks = [
            Crook(self._station(1000 + number), kind, self.made)
            for number, kind in enumerate(plan.liars)
        ]
        self.descriptor = self._descriptor()
        self.faults: Counter[str] = Counter()
        self.mended = 0
        self.fetched: dict[FaultStation, int] = {}
        self._watch = Watch(self)
        self._cuts: list[Fault] = []
        self._calm = False

    def _content(self) -> Content:
        plan = self.plan
        short = random.Random(f"content/{plan.seed}").randrange(PIECE)
        length = plan.pieces * PIECE - short
        files = {"model.bin": length}
        if plan.folder:
            files = {
                "set/a/empty": 0,
                "set/a/half": length // 2,
                "set/rest": length - length // 2,
            }
        return content(files, zeros=plan.zeros, seed=plan.seed)

    def _station(self, number: int) -> FaultStation:
        high, low = divmod(number, 1000)
        ip = f"fd00::{high}:{low + 1:x}" if self.plan.ipv6 else f"10.{high}.0.{low + 1}"
        chance = self.world.chance("disk", number)
        station = FaultStation(self.world.host(ip), disk=FaultyDisk(chance=chance))
        station.host.disk = _Power(station.disk, station.host)
        station.disk.put_folder(DATA)
        return station

    def _descriptor(self) -> Descriptor:
        boot = self.stations[0].address
        entries = [HostPort(*boot)]
        if self.plan.by_name:
            self.world.dns[BOOTSTRAP_NAME] = [boot.host]
            entries = [HostPort(BOOTSTRAP_NAME, boot.port)]
        return evolve(self.made.descriptor(), nodes=tuple(entries))

    # --- the whole story ---

    def run(self) -> Outcome:
        """Carry the plan out.

        Raises:
            Violation: a promise of safety was broken; the text names seed and time.
            Stuck: somebody did not complete in time.
        """
        world, plan = self.world, self.plan
        log = cast("ILogObserver", self._watch.log_event)
        globalLogPublisher.addObserver(log)
        world.after_event.append(self._watch)
        try:
            world.link(bandwidth=plan.bandwidth, mtu=limits.DATAGRAM_BYTES, **plan.weather)
            self._schedule()
            world.run(plan.storm_s)
            self._calm_down()
            world.run_until(self._all_complete, HEAL_S)
            completed_s = world.now - plan.storm_s
            self._watch.everything()
            for station, session in self.sessions():
                self.fetched[station] = session.transfer.progress().downloaded_bytes
            self._stop()
        finally:
            globalLogPublisher.removeObserver(log)
        return Outcome(
            plan.seed,
            completed_s,
            world.now,
            world.events,
            self.faults,
            self.mended,
            world.trace_hash(),
        )

    def _schedule(self) -> None:
        for number, (station, at) in enumerate(zip(self.stations, self.plan.starts, strict=True)):
            if 1 <= number <= self.plan.seeds:
                station.store(self.made)
            self._later(at, self._start, station)
        for crook in self.crooks:
            self._later(0.5, crook.run, self.descriptor)
        for fault in self.plan.faults:
            self._later(fault.at, self._begin, fault)

    def _later(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """Do something that is nobody's work, so that no crash forgets it."""
        self.world.at(self.world.now + delay, KERNEL, call, *args)

    # --- processes ---

    def _start(self, station: FaultStation) -> None:
        """Start a service; one that cannot start is tried again."""
        if not station.host.up or station.service is not None:
            return
        descriptors = () if station is self.stations[0] else (self.descriptor,)
        listen = ("::",) if self.plan.ipv6 else ("0.0.0.0",)
        try:
            station.run(*descriptors, listen=listen)
        except (P2PDistError, OSError):
            station.restarts += 1
            self._die(station)
            self._later(RESTART_S, self._rise, station)

    def _die(self, station: FaultStation) -> None:
        station.host.kill()
        station.disk.kill()
        station.service = None

    def _rise(self, station: FaultStation) -> None:
        if not station.host.up:
            station.host.restart()
            self._watch.forget(station)
            self._start(station)

    def _session(self, station: Station) -> Session | None:
        if station.service is None or not station.host.up:
            return None
        return next(iter(station.service.contents.sessions.values()), None)

    def sessions(self) -> Iterator[tuple[FaultStation, Session]]:
        """Iterate over the sessions of honest machines that are up."""
        for station in self.stations[1:]:
            session = self._session(station)
            if session is not None:
                yield station, session

    # --- faults ---

    def _begin(self, fault: Fault) -> None:
        station = self.stations[fault.who[0]]
        if station.host.boot.halted and fault.kind not in {"partition", "one-way", "clog", "names"}:
            return
        self.faults[fault.kind] += 1
        {
            "partition": self._cut,
            "one-way": self._cut,
            "clog": self._clog,
            "pause": self._pause,
            "crash": self._crash,
            "kill": self._kill,
            "restart": self._restart,
            "slow disk": self._slow_disk,
            "failing disk": self._failing_disk,
            "full disk": self._full_disk,
            "clock": self._clock,
            "names": self._names,
            "rot": self._rot,
        }[fault.kind](fault, station)

    def _until(self, fault: Fault, end: Callable[..., object], *args: Any) -> None:
        """End a fault in its time, unless all ended before."""

        def over() -> None:
            if not self._calm:
                end(*args)

        self._later(fault.lasts, over)

    def _cut(self, fault: Fault, _station: FaultStation) -> None:
        self._cuts.append(fault)
        self._cut_again()

        def mend() -> None:
            self._cuts.remove(fault)
            self._cut_again()

        self._until(fault, mend)

    def _cut_again(self) -> None:
        self.world.heal()
        for fault in self._cuts:
            these = [self.stations[number].host for number in fault.who]
            those = [host for host in self.world.hosts.values() if host not in these]
            one, two = (these, those) if fault.how < 0.5 else (those, these)
            self.world.partition(one, two, one_way=fault.kind == "one-way")

    def _clog(self, fault: Fault, station: FaultStation) -> None:
        other = self.stations[fault.who[1]].host
        self.world.clog(station.host, other, fault.lasts, one_way=fault.how < 0.5)

    def _pause(self, fault: Fault, station: FaultStation) -> None:
        station.host.pause()
        boot = station.host.boot
        self._until(fault, boot.resume, self.world)

    def _crash(self, fault: Fault, station: FaultStation) -> None:
        station.host.crash()
        station.service = None
        self._until(fault, self._rise, station)

    def _kill(self, fault: Fault, station: FaultStation) -> None:
        self._die(station)
        self._until(fault, self._rise, station)

    def _restart(self, fault: Fault, station: FaultStation) -> None:
        """Stop in order; what takes too long is killed."""
        if station.service is None:
            return
        boot = station.host.boot

        def stopped(_result: object) -> None:
            if station.host.boot is boot and boot.alive:
                self._die(station)
                self._later(min(fault.lasts, 5.0), self._rise, station)

        service, station.service = station.service, None
        service.stopService().addBoth(stopped)
        self._later(limits.STOP_S + 5, stopped, None)

    def _slow_disk(self, fault: Fault, station: FaultStation) -> None:
        workers = station.host.workers
        workers.delay = (0.01, 0.05 + 2 * fault.how)
        self._until(fault, setattr, workers, "delay", self.world.worker_delay)

    def _failing_disk(self, fault: Fault, station: FaultStation) -> None:
        disk = station.disk
        disk.errors = (0.02, 0.1, 0.5, 1.0)[int(4 * fault.how)]
        self._until(fault, setattr, disk, "errors", 0.0)

    def _full_disk(self, fault: Fault, station: FaultStation) -> None:
        disk = station.disk
        disk.capacity = disk.used + int(fault.how * 4 * PIECE)
        self._until(fault, setattr, disk, "capacity", 1 << 40)

    def _clock(self, fault: Fault, station: FaultStation) -> None:
        jumps = (-3600.0, 3600.0, -315e6, 315e6, -7.0, 7.0)
        station.wall_jump = jumps[int(fault.how * len(jumps))]
        self._until(fault, setattr, station, "wall_jump", 0.0)

    def _names(self, fault: Fault, _station: FaultStation) -> None:
        """The name server is silent, or says that there is no such name."""
        if BOOTSTRAP_NAME in self.world.dns:
            self.world.dns[BOOTSTRAP_NAME] = None if fault.how < 0.5 else []
            right = [self.stations[0].address.host]
            self._until(fault, self.world.dns.update, {BOOTSTRAP_NAME: right})

    def _rot(self, fault: Fault, station: FaultStation) -> None:
        """A byte that was written and checked changes on the disk, and nothing tells."""
        session = self._session(station)
        store = None if session is None else session.transfer.store
        if store is None or store.published or not store.have.count_set:
            return
        have = [index for index in store.have if not self.made.metadata.is_zero(index)]
        if have:
            index = have[int(fault.how * len(have))]
            station.rotten.add(index)
            path, offset = self.place_of(index * PIECE, store._tree.top)
            station.disk.flip(path, offset)

    # --- the end of the faults ---

    def _calm_down(self) -> None:
        world = self.world
        self._calm = True
        self._cuts.clear()
        world.heal()
        world.link(delay=(0.001, 0.005), loss=0.01, bandwidth=max(self.plan.bandwidth, 100_000))
        if self.plan.by_name:
            world.dns[BOOTSTRAP_NAME] = [self.stations[0].address.host]
        for station in self.stations:
            station.wall_jump = 0.0
            station.disk.errors = 0.0
            station.disk.capacity = 1 << 40
            station.host.workers.delay = world.worker_delay
            if station.host.boot.halted and station.host.up:
                station.host.resume()
            if not station.host.up:
                self._rise(station)

    def _all_complete(self) -> bool:
        if self._watch.ticks % 16:
            return False
        done = True
        for station in self.stations[1:]:
            session = self._session(station)
            if session is None:
                done = False
            elif session.stage is Stage.FAILED:
                self._mend(station)
                done = False
            else:
                done = done and session.stage is Stage.SEEDING
        return done

    def _mend(self, station: FaultStation) -> None:
        """Do what the operator is told to do once the disk works again: restart."""
        self.mended += 1
        self.faults[f"mended: {getattr(self._session(station), '_error', '')[:40]}"] += 1
        self._die(station)
        self._rise(station)

    def _stop(self) -> None:
        services = [station for station in self.stations if station.service is not None]
        for crook in self.crooks:
            crook.host.kill()
        for station in services:
            assert station.service is not None
            self.world.wait_for(station.service.stopService())
            station.service = None
        self.world.run(limits.CLOSE_S)  # the last packets
        for station in services:
            left = station.host.leaks()
            if left or station.disk.open_handles:
                raise Violation(f"{station.host} left {left}, {station.disk.open_handles} files")
        for station in self.stations[1:]:
            if not station.holds(self.made) and not station.rotten:
                raise Violation(f"the copy of {station.host} is wrong")

    # --- places ---

    def place_of(self, start: int, top: str) -> tuple[str, int]:
        """Return the path and the offset there of a byte of the content, called ``top``."""
        for entry in self.made.metadata.files:
            if start < entry.length:
                return "/".join((DATA, top, *entry.path[1:])), start
            start -= entry.length
        raise AssertionError("beyond the end")

    def span_on(self, station: FaultStation, index: int, top: str) -> bytes:
        """Return a piece's bytes as programs see them on a machine."""
        found = bytearray()
        size = len(self.made.piece(index))
        while len(found) < size:
            path, offset = self.place_of(index * PIECE + len(found), top)
            node = station.disk.node_of(path)
            part = b"" if node is None else bytes(node.data[offset : offset + size - len(found)])
            if not part:
                return bytes(found)
            found += part
        return bytes(found)


@define(eq=False)
class Watch:
    """The checks of safety; called after every event.

    Args:
        faults: what to look at.

    Attributes:
        ticks: events so far.
    """

    faults: FaultWorld
    ticks: int = 0
    _seen: dict[FaultStation, tuple[Any, tuple[int, ...], bool]] = field(factory=dict)
    _logged: list[str] = field(factory=list)

    def forget(self, station: FaultStation) -> None:
        """A new process begins on a machine."""
        self._seen.pop(station, None)

    def log_event(self, event: Any) -> None:
        """Remember what is logged as a bug."""
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            self._logged.append(failure.getTraceback())

    def __call__(self) -> None:
        """Look at every machine.

        Raises:
            Violation: see the module's docstring.
        """
        self.ticks += 1
        bounds = self.ticks % _BOUNDS_EVERY == 0
        if self._logged:
            raise Violation(f"a bug was logged: {self._logged[0]}")
        for crook in self.faults.crooks:
            if crook.wrong:
                host, index = crook.wrong.pop()
                if any(host in station.host.addresses for station in self.faults.stations):
                    self._served(f"{host} served wrong bytes of piece {index}")
        for station, session in self.faults.sessions():
            self._pieces(station, session)
            if bounds:
                self._bounds(station, session)

    def everything(self) -> None:
        """Look at every byte once more."""
        self._seen.clear()
        for station, session in self.faults.sessions():
            self._pieces(station, session)
            self._bounds(station, session)
        honest = {address for each in self.faults.stations for address in each.host.addresses}
        for record in self.faults.world.trace:
            too_long = record.kind == "udp" and record.length > limits.DATAGRAM_BYTES
            if too_long and record.source[0] in honest:
                raise Violation(f"{record.source} sent {record.length} bytes in a datagram")

    def _served(self, text: str) -> None:
        if not self.faults.faults["rot"]:
            raise Violation(text)

    def _pieces(self, station: FaultStation, session: Session) -> None:
        exchange = session.transfer._exchange
        if exchange is None:
            return
        store, states = exchange._store, exchange.picker.states()
        before, last, published = self._seen.get(station, (None, (), False))
        if before is exchange and last == states and store.published == published:
            return
        missing, flying, writing, have = states
        whole = masks.full(exchange.geometry.count)
        if missing + flying + writing + have != whole or missing | flying | writing | have != whole:
            raise Violation(f"{station.host}: a piece is in two states or in none")
        known = last[3] if before is exchange else 0
        published = published and before is exchange
        if store._closed:
            return
        kept = masks.from_bitfield(store.have.to_bytes())
        if have & ~kept:
            raise Violation(f"{station.host}: the picker has pieces that the store has not")
        fresh = have if store.published and not published else have & ~known
        for index in masks.indices(fresh):
            self._piece(station, index, store._tree.top)
        if store.published and not published:
            self._published(station)
        self._seen[station] = (exchange, states, store.published)

    def _piece(self, station: FaultStation, index: int, top: str) -> None:
        faults = self.faults
        if faults.span_on(station, index, top) == faults.made.piece(index):
            station.rotten.discard(index)
        elif index not in station.rotten:
            raise Violation(f"{station.host} counts piece {index} as here, and it is not")

    def _published(self, station: FaultStation) -> None:
        """What stands under the final name would survive a power failure."""
        for path, data in self.faults.made.files().items():
            node = station.disk.node_of(f"{DATA}/{path}")
            if node is None or (bytes(node.durable) != data and not station.rotten):
                raise Violation(f"{station.host} published {path} before it was on the device")

    def _bounds(self, station: FaultStation, session: Session) -> None:
        assert station.service is not None
        transfer, contents = session.transfer, station.service.contents
        roster, overlay = transfer._roster, station.service.overlay.network
        honest = {
            other.service.node_id for other in self.faults.stations if other.service is not None
        }
        if honest & roster._bans._offences.keys():
            self._served(f"{station.host} was given wrong bytes by an honest node")
        requests = max(
            (len(member.connection._requests) for member in roster.members.values()), default=0
        )
        for what, value, bound in (
            ("bytes in assembly", contents._budget.used_bytes, limits.ASSEMBLY_BYTES),
            ("members", len(roster.members), limits.CIRCLE_MOST),
            ("connections", contents._admission.count, limits.CONNECTIONS),
            ("requests on one connection", requests, limits.REQUESTS_MAX),
            ("calls outstanding", overlay.rpc.outstanding, limits.CALLS_OUTSTANDING),
            ("neighbours", len(overlay.neighbours), limits.NEIGHBOURS),
            ("peers", overlay.peers.total, limits.PEERS_TOTAL),
            ("open files", station.disk.open_handles, limits.OPEN_FILES + 16),
            ("delayed calls", len(station.host.reactor.getDelayedCalls()), 500),
        ):
            if value > bound:
                raise Violation(f"{station.host}: {value} {what}, at most {bound} are allowed")


def run_seed(seed: int, *, small: bool = False) -> Outcome:
    """Draw the plan of a seed and carry it out."""
    return FaultWorld(draw(seed, small=small)).run()
