"""Rows of `reliability.py` that attack real processes on loopback while a file is downloaded."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import selectors
import shutil
import socket
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import junk
from common import Report
from loopback import MBIT_100, Node, downloader, seeded, waiting
from rows import Setting, row

CONNECTIONS = 5000
NEW_PER_S = 2000
DRIP_S = 5.0
SETTLED_S = 3.0
SECONDS = 20
"""Of a download at 100 Mbit/s."""
KINDS = {
    "random": "noise",
    "sealed": "sealed, one boot id",
    "sealed, our tokens": "sealed, true tokens",
}
"""As `junk.py` calls them. The last ones are answered: 256 sources may ask 50 times a second."""


def besiege(port: int, seconds: float, pipe: Connection) -> None:
    """Keep 5,000 connections open, half of them silent, half saying a byte every 5 s."""
    chance, chosen = random.Random(1), selectors.DefaultSelector()
    talkers: list[socket.socket] = []
    opened, most = 0, 0
    ends, next_drip, began = time.monotonic() + seconds, 0.0, time.monotonic()
    while time.monotonic() < ends:
        allowed = int((time.monotonic() - began) * NEW_PER_S) - opened
        for _ in range(min(allowed, CONNECTIONS - len(chosen.get_map()), 100)):
            one = socket.socket()
            one.setblocking(False)
            one.bind((f"127.{chance.randrange(1, 250)}.{chance.randrange(256)}.1", 0))
            one.connect_ex(("127.0.0.1", port))
            chosen.register(one, selectors.EVENT_READ)
            opened += 1
            if opened % 2:
                talkers.append(one)
        most = max(most, len(chosen.get_map()))
        for key, _ in chosen.select(0.01):
            _drop(chosen, key.fileobj)
        if time.monotonic() >= next_drip:
            next_drip = time.monotonic() + DRIP_S
            talkers = [one for one in talkers if one.fileno() >= 0]
            for one in talkers:
                with contextlib.suppress(OSError):
                    one.send(b"P")
    pipe.send((opened, most))


def _drop(chosen: selectors.DefaultSelector, one: object) -> None:
    """Read; hang up when the other side did."""
    assert isinstance(one, socket.socket)
    try:
        if one.recv(4096):
            return
    except OSError:
        pass
    chosen.unregister(one)
    one.close()


def rate_of(leech: Node, size: int) -> float:
    """Wait for a download; return its bytes per second from the first peer to the last byte."""
    began = leech.wait_for("first peer")
    return size / (leech.wait_for("complete and verified after", 300) - began)


@row("connections")
def connections(report: Report, setting: Setting) -> None:
    """Five thousand connections to the seed that never say who they are."""
    seconds = 1 if setting.quick else SECONDS
    size = MBIT_100 * seconds
    with tempfile.TemporaryDirectory() as text:
        base = Path(text)
        with seeded(base, size) as (seed, descriptor):
            leech = downloader(base, "calm", descriptor)
            calm = rate_of(leech, size)
            leech.stop()
            before = seed.rss_mib()
            here, there = multiprocessing.Pipe()
            attacker = multiprocessing.Process(
                target=besiege, args=(seed.port, seconds * 2.5 + SETTLED_S, there)
            )
            attacker.start()
            try:
                time.sleep(SETTLED_S)
                leech = downloader(base, "besieged", descriptor)
                busy = rate_of(leech, size)
                growth, handles = seed.peak_mib() - before, seed.descriptors()
                leech.stop()
                opened, most = here.recv()
            finally:
                attacker.terminate()
                attacker.join()
    report.add("5,000 connections: opened", opened, "", at_least=CONNECTIONS)
    report.add("5,000 connections: open at once on the attacker's side, most", most, "")
    report.add("5,000 connections: download without them", calm * 8 / 1e6, "Mbit/s")
    report.add("5,000 connections: download kept", 100 * busy / calm, "%", at_least=80)
    report.add("5,000 connections: seed's memory grown by", growth, "MiB", at_most=48)
    report.add("5,000 connections: seed's open descriptors", handles, "", at_most=300)


@row("junk")
def junk_datagrams(report: Report, setting: Setting) -> None:
    """30,000 datagrams a second at the downloader: random ones, and correctly sealed ones."""
    if setting.quick:
        report.skip("junk: download kept", "%", "junk.py --quick has less of it")
        return
    size = MBIT_100 * SECONDS
    with tempfile.TemporaryDirectory() as text:
        base = Path(text)
        with seeded(base, size) as (_, descriptor):
            leech = downloader(base, "calm", descriptor)
            calm = rate_of(leech, size)
            leech.stop()
            report.add("junk: download without it", calm * 8 / 1e6, "Mbit/s")
            for label, kind in KINDS.items():
                _flooded(report, base, descriptor, size, (label, kind), calm)


def _flooded(
    report: Report, base: Path, descriptor: Path, size: int, junk_of: tuple[str, str], calm: float
) -> None:
    label, kind = junk_of
    leech, watched = waiting(base, kind.replace(" ", "-").replace(",", ""))
    here, there = multiprocessing.Pipe()
    seconds = 2.0 * size / MBIT_100 + 30
    sender = multiprocessing.Process(target=junk.send, args=(leech.port, kind, seconds, there))
    sender.start()
    try:
        here.recv()
        began, said = time.perf_counter(), leech.log_bytes
        before = leech.rss_mib()
        here.send(None)
        time.sleep(1.0)
        shutil.copy(descriptor, watched)
        rate = rate_of(leech, size)
        minutes = (time.perf_counter() - began) / 60
        growth = leech.peak_mib() - before
        log = (leech.log_bytes - said) / 1000 / max(minutes, 1.0)
    finally:
        sender.terminate()
        sender.join()
        leech.stop()
    report.add(f"junk, {label}: download kept", 100 * rate / calm, "%", at_least=80)
    report.add(f"junk, {label}: log per minute", log, "kB", at_most=100)
    report.add(f"junk, {label}: memory grown by", growth, "MiB")
