"""``twistd -n p2pdist``: options, and the service they describe.

Job: read options and descriptors, refuse what is wrong with one line and the documented exit code,
build :class:`~p2pdist.service.P2PDistService`. Tests: ``test_tap``, ``test_e2e``.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from twisted.application.service import IService
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from p2pdist.addresses import HostPort, parse_host_port
from p2pdist.config import Config, default_state_dir, parse_listen, parse_port
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.errors import ConfigurationError, P2PDistError
from p2pdist.faces.process import steady
from p2pdist.limits import DEFAULT_PORT
from p2pdist.logs import verbose
from p2pdist.machine import real_machine
from p2pdist.service import P2PDistService

EXIT_USAGE = 2


def refuse(text: str, exit_code: int) -> NoReturn:
    """End the process with one line."""
    sys.stderr.write(f"p2pdist: {text}\n")
    raise SystemExit(exit_code)


class Options(UsageOptions):
    """What ``twistd p2pdist --help`` shows.

    Attributes:
        descriptors: parsed, in the order given.
        config: everything else.
    """

    synopsis = "[--descriptor FILE.desc]... [options]"
    longdesc = (
        "Fetches and seeds the contents of the descriptors. Without any descriptor this is a bare "
        "overlay node, good enough for others to find each other through it."
    )
    optParameters = (
        ("directory", "d", ".", "Folder for downloads, and where complete files are looked for."),
        ("port", "p", str(DEFAULT_PORT), "UDP and TCP port; 0 takes any free one."),
        (
            "state-dir",
            "s",
            None,
            "Folder for the node's key and records [$STATE_DIRECTORY, or ~/.local/state/p2pdist].",
        ),
    )
    optFlags = (
        ("no-lan", None, "Do not look for nodes on the local network."),
        ("verbose", "v", "Log single messages too."),
    )

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[Descriptor] = []
        self.config = Config()
        self._files: list[str] = []
        self._listen: list[str] = []
        self._nodes: list[str] = []

    def opt_descriptor(self, path: str) -> None:
        """Descriptor file; may be repeated."""
        self._files.append(path)

    def opt_listen(self, address: str) -> None:
        """IP address to listen on [all of this machine]; may be repeated."""
        self._listen.append(address)

    def opt_node(self, address: str) -> None:
        """HOST:PORT of a node to ask first, besides those of descriptors; may be repeated."""
        self._nodes.append(address)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse; what is wrong ends the process with one line."""
        try:
            super().parseOptions(options)
        except UsageError as error:
            refuse(f"{error}; see twistd p2pdist --help", EXIT_USAGE)
        except P2PDistError as error:
            refuse(str(error), error.exit_code)

    def postOptions(self) -> None:
        """Check everything that can be checked before the process is set up."""
        parser = DescriptorParser()
        self.descriptors = [parser.parse_file(path) for path in self._files]
        state_dir = self["state-dir"] or default_state_dir(dict(os.environ))
        self.config = Config(
            directory=existing_folder(self["directory"]),
            port=parse_port(self["port"]),
            listen=tuple(dict.fromkeys(parse_listen(text) for text in self._listen)),
            state_dir=os.path.abspath(state_dir),  # noqa: PTH100 -- keeps links
            nodes=tuple(parse_node(text) for text in self._nodes),
            lan=not self["no-lan"],
        )


def existing_folder(path: str) -> str:
    """Return ``path`` if it is a folder.

    Raises:
        ConfigurationError: it is not.
    """
    if not os.path.isdir(path):  # noqa: PTH112 -- text
        raise ConfigurationError(f"--directory {path!a}: no such folder; make it first")
    return path


def parse_node(text: str) -> HostPort:
    """Parse the value of ``--node``.

    Raises:
        ConfigurationError: it is no ``host:port``.
    """
    try:
        return parse_host_port(text)
    except ValueError as error:
        raise ConfigurationError(f"--node: {error}") from error


def makeService(options: Options) -> IService:
    """Build the service, lock its state and open its ports.

    An error ends the process with one line and the exit code of its class.
    """
    from twisted.internet import reactor  # noqa: TID251 -- the one place that may

    if options["verbose"]:
        verbose()
    try:
        service = P2PDistService(options.config, real_machine(steady(reactor)))
        for descriptor in options.descriptors:
            service.add(descriptor)
        service.bind()
    except P2PDistError as error:
        refuse(str(error), error.exit_code)
    return service
