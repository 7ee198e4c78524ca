"""Serve a file until N machines have it: ``python distribute.py FILE ADDRESS PORT N``.

ADDRESS is one of this machine that the others reach. The descriptor goes to ``FILE.desc``; hand it
to them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import task

from p2pdist import Config, distribute


async def main(reactor: Any, path: str, address: str, port: str, machines: str) -> None:
    """Describe the file, serve it, and end when so many machines have it, this one included."""
    config = Config(port=int(port), listen=(address,))
    swarm = await distribute(reactor, path, config, nodes=[f"{address}:{port}"])
    try:
        Path(f"{path}.desc").write_text(swarm.descriptor.to_toml(), encoding="utf-8")
        print(f"hand out {path}.desc", flush=True)
        for machine in await swarm.done(int(machines)):
            print(f"{machine.record.report.name} has it")
    finally:
        await swarm.stop()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
