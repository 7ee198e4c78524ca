"""Fetch one content inside a Twisted application: ``python embed.py FILE.desc FOLDER``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import task

from p2pdist.config import Config
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.machine import Machine, real_machine
from p2pdist.service import P2PDistService


async def fetch(machine: Machine, config: Config, descriptor: Descriptor) -> str:
    """Run a node until the content is complete, and return the content's path."""
    service = P2PDistService(config, machine)  # or: service.setServiceParent(application)
    session = service.add(descriptor)
    service.startService()
    try:
        return await session.complete
    finally:
        await service.stopService()


async def main(reactor: Any, descriptor_path: str, folder: str) -> None:
    """Fetch what the descriptor names into the folder."""
    descriptor = DescriptorParser().parse_file(descriptor_path)
    path = await fetch(real_machine(reactor), Config(directory=folder, port=0), descriptor)
    sys.stdout.write(f"complete and verified: {path}\n")


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
