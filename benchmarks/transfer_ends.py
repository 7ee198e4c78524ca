"""One end of one transfer for ``transfer.py``: a seeder or a downloader in a process of its own.

A child gets its order as JSON in its only argument, prints ``ready`` when it is idle, begins at a
line on standard input, prints ``done`` when the copy is complete, verified and on disk, and ends
with its standard input. What it costs is read from outside.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PIECE = 4 << 20  # of the bare copy
HASHERS = 2
BUFFERS = 6


def say(word: str) -> None:
    """Tell the parent."""
    print(word, flush=True)


def durable(path: str) -> None:
    """Wait until a file is on disk: every contestant delivers that."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


# --- p2pdist ---


def p2pdist(order: dict[str, Any]) -> None:
    """Run the production service in this process, as ``p2pdist get`` and ``seed`` do."""
    from twisted.internet import reactor, threads

    from p2pdist.config import Config
    from p2pdist.descriptor import DescriptorParser
    from p2pdist.faces.process import steady
    from p2pdist.machine import real_machine
    from p2pdist.service import P2PDistService
    from p2pdist.swarm.throttle import RateLimits

    loop: Any = steady(reactor)
    config = Config(
        directory=order["folder"],
        port=order["port"],
        listen=("127.0.0.1",),
        lan=False,
        state_dir=order.get("state"),
        rates=RateLimits(download=order.get("rate")),
    )
    service = P2PDistService(config, real_machine(loop))
    descriptor = DescriptorParser().parse_file(order["descriptor"])

    def complete(path: str) -> None:
        if order["seed"]:
            say("ready")
        else:
            durable(path)
            say("done")

    def failed(failure: Any) -> None:
        failure.printTraceback()
        loop.stop()

    def add() -> None:
        service.add(descriptor).complete.addCallbacks(complete, failed)

    def orders() -> None:
        """Begin at the first line, stop at the end; in a thread of its own."""
        sys.stdin.readline()
        if not order["seed"]:
            threads.blockingCallFromThread(loop, add)
        sys.stdin.read()
        loop.callFromThread(stop)

    def stop() -> None:
        service.stopService().addBoth(lambda _: loop.stop())

    def begin() -> None:
        service.privilegedStartService()
        service.startService()
        if order["seed"]:
            add()
        else:
            say("ready")
        threading.Thread(target=orders, daemon=True).start()

    loop.callWhenRunning(begin)
    loop.run()


# --- libtorrent ---


def libtorrent(order: dict[str, Any]) -> None:
    """Run a session with its default settings, but for finding peers, and TCP only.

    Over uTP, which it tries first, it is slower here by far.
    """
    import libtorrent as lt

    session = lt.session(
        {
            "listen_interfaces": f"127.0.0.1:{order['port']}",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_outgoing_utp": False,
            "enable_incoming_utp": False,
            "alert_mask": lt.alert.category_t.status_notification,
        }
    )
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(order["torrent"])
    params.save_path = order["folder"]
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if order["seed"]:
        params.flags |= lt.torrent_flags.seed_mode
        session.add_torrent(params)
        say("ready")
        sys.stdin.read()
        return
    say("ready")
    sys.stdin.readline()
    torrent = session.add_torrent(params)
    finished = False
    while not finished:
        if not torrent.status().num_peers:  # a call before the torrent is ready is forgotten
            torrent.connect_peer(("127.0.0.1", order["peer"]))
        session.wait_for_alert(50)
        finished = any(
            isinstance(alert, lt.torrent_finished_alert) for alert in session.pop_alerts()
        )
    durable(str(Path(order["folder"]) / order["name"]))
    say("done")
    sys.stdin.read()


# --- the bare verified copy ---


def copy(order: dict[str, Any]) -> None:
    """What any program must do at least: TCP, BLAKE3, and a write, in threads.

    The sender uses sendfile; the receiver reads 4 MiB into one of a few buffers, which two threads
    hash and write.
    """
    path = str(Path(order["folder"]) / order["name"])
    if order["seed"]:
        with socket.create_server(("127.0.0.1", order["port"])) as server:
            say("ready")
            peer, _ = server.accept()
        with Path(path).open("rb") as file:
            peer.sendfile(file)
        peer.close()
        sys.stdin.read()
        return
    say("ready")
    sys.stdin.readline()
    receive(path, order["size"], order["peer"])
    durable(path)
    say("done")
    sys.stdin.read()


def receive(path: str, size: int, port: int) -> None:
    """Fetch ``size`` bytes."""
    from blake3 import blake3

    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
    for _ in range(BUFFERS):
        free.put(memoryview(bytearray(PIECE)))

    def work() -> None:
        while (item := full.get()) is not None:
            view, offset = item
            part = view[: min(PIECE, size - offset)]
            blake3(part).digest()
            os.pwrite(handle, part, offset)
            free.put(view)

    workers = [threading.Thread(target=work) for _ in range(HASHERS)]
    for worker in workers:
        worker.start()
    with socket.create_connection(("127.0.0.1", port)) as peer:
        for offset in range(0, size, PIECE):
            view = free.get()
            wanted = min(PIECE, size - offset)
            peer.recv_into(view, wanted, socket.MSG_WAITALL)
            full.put((view, offset))
    for _ in workers:
        full.put(None)
    for worker in workers:
        worker.join()
    os.close(handle)


def warm(size: int) -> None:
    """Touch so much memory once: the first touch of a page of a virtual machine is slow."""
    chunks = []
    for _ in range(0, size, 1 << 26):
        chunk = bytearray(1 << 26)
        chunk[::4096] = b"\1" * len(chunk[::4096])
        chunks.append(chunk)


def main() -> None:
    """Do what the order says."""
    order = json.loads(sys.argv[1])
    began = time.perf_counter()
    if order["who"] == "warm":
        warm(order["size"])
        say(f"{time.perf_counter() - began:.1f}")
        return
    {"p2pdist": p2pdist, "libtorrent": libtorrent, "copy": copy}[order["who"]](order)


if __name__ == "__main__":
    main()
