"""Be one machine of a rollout: fetch, switch over, go on serving until the process ends.

``python rollout.py FILE.desc FOLDER``
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from p2pdist import Config, RateLimits, Swarm


async def switch_over(path: str) -> None:
    """Do what the file was fetched for; here only a line is printed."""
    print(f"ready: {path}")


async def join_rollout(reactor: Any, descriptor: str, folder: str) -> Swarm:
    """Fetch the content with whatever the line gives, then serve it to the others more slowly."""
    swarm = await Swarm.join(reactor, descriptor, Config(directory=folder, port=0))
    try:
        await switch_over(await swarm.complete)
    except BaseException:
        await swarm.stop()
        raise
    swarm.set_limits(RateLimits(upload=20_000_000))
    return swarm


async def main(reactor: Any, descriptor: str, folder: str) -> None:
    """Join, and stay; an interrupt stops the swarm cleanly before the reactor ends."""
    await join_rollout(reactor, descriptor, folder)
    await Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
