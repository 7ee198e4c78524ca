"""Fetch one content and end: ``python fetch.py FILE.desc FOLDER [ADDRESS]``.

With an address of this machine, the node listens on that one only.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import task

from p2pdist import Config, fetch
from p2pdist.errors import P2PDistError
from p2pdist.standing import SessionStatus


def show(status: SessionStatus) -> None:
    """Print one line a second."""
    progress = status.progress
    done = 100 * progress.have_bytes // progress.length if progress.length else 0
    print(f"{status.name}: {done} %, {progress.peers} peers {status.waiting_for}")


async def main(reactor: Any, descriptor: str, folder: str, *listen: str) -> None:
    """Fetch what the descriptor names into the folder."""
    config = Config(directory=folder, port=0, listen=listen)
    try:
        path = await fetch(reactor, descriptor, config, on_progress=show)
    except P2PDistError as error:
        raise SystemExit(str(error)) from None
    print(f"complete and verified: {path}")


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
