"""What runs on one host of ``swarm.py``: ``python swarm_member.py ROLE ...``.

Job: the programs that have to be Python's. Whoever takes part from the start imports everything,
says "ready" and waits for a line on standard input, so that nobody's interpreter is measured; what
comes after that line is. Not job: who runs where.

Roles: ``get ARGUMENTS`` is the command ``p2pdist get``; ``twistd ARGUMENTS`` is twistd at once;
``poison ARGUMENTS`` is twistd with a store that serves every block with one bit turned over;
``libtorrent JOB`` and ``tracker ADDRESS...`` are what the others need.
"""

from __future__ import annotations

import importlib
import json
import socket
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BITTORRENT_PORT = 6881
TRACKER_PORT = 6969
DIAL_EVERY_S = 5.0


def wait_for_start() -> None:
    """Say that we could begin, and wait until we may."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        raise SystemExit("nobody is there any more")


def get(arguments: list[str]) -> None:
    """Be ``p2pdist get``."""
    from p2pdist.faces.cli.main import main

    for name in ("twisted.internet.reactor", "p2pdist.faces.cli.get", "p2pdist.service"):
        importlib.import_module(name)
    wait_for_start()
    sys.argv = ["p2pdist", "get", *arguments]
    main()


def twistd(arguments: list[str]) -> None:
    """Be ``twistd``."""
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", *arguments]
    run()


def poison(arguments: list[str]) -> None:
    """Be ``twistd`` with a store that lies."""
    from twisted.internet.defer import Deferred

    from p2pdist.storage.store import Store

    honest = Store.read

    def lie(data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:]

    def read(
        self: Store, index: int, offset: int, size: int, *, lend: bool = False
    ) -> Deferred[bytes]:
        del lend  # what is lent cannot be changed
        return honest(self, index, offset, size).addCallback(lie)

    Store.read = read  # type: ignore[method-assign]
    twistd(arguments)


def libtorrent(arguments: list[str]) -> None:
    """Be a small client: dial everybody, and touch the file ``done`` when complete."""
    import libtorrent as lt

    job = json.loads(arguments[0])
    off = ("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp",
           "enable_outgoing_utp", "enable_incoming_utp")  # fmt: skip
    settings: Any = {
        "listen_interfaces": f"0.0.0.0:{BITTORRENT_PORT}",
        "alert_mask": lt.alert.category_t.status_notification,
        **dict.fromkeys(off, False),
        **job["settings"],
    }
    session = lt.session(settings)
    content = lt.load_torrent_file(job["torrent"])
    content.save_path = job["folder"]
    content.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    for flag in job["flags"]:
        content.flags |= getattr(lt.torrent_flags, flag)
    if job["waits"]:
        wait_for_start()
    torrent = session.add_torrent(content)
    while True:
        for ip in job["others"]:
            torrent.connect_peer((ip, BITTORRENT_PORT))
        session.wait_for_alert(int(1000 * DIAL_EVERY_S))
        if any(isinstance(alert, lt.torrent_finished_alert) for alert in session.pop_alerts()):
            Path(job["done"]).touch()


def tracker(arguments: list[str]) -> None:
    """Be a tracker that names everybody, always."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer an announcement."""
            peers = b"".join(
                socket.inet_aton(ip) + struct.pack("!H", BITTORRENT_PORT)
                for ip in arguments
                if ip != self.client_address[0]
            )
            body = b"d8:intervali15e12:min intervali5e5:peers%d:%be" % (len(peers), peers)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    ThreadingHTTPServer(("", TRACKER_PORT), Answer).serve_forever()


ROLES = {
    "get": get,
    "twistd": twistd,
    "poison": poison,
    "libtorrent": libtorrent,
    "tracker": tracker,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](sys.argv[2:])
