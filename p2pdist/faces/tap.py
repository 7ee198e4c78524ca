"""``twistd -n p2pdist``: options, and the service they describe.

Job: read options and descriptors, refuse what is wrong with one line and the documented exit code,
build :class:`~p2pdist.service.P2PDistService`. Tests: ``test_tap``, ``test_e2e``.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, NoReturn, cast

from twisted.application.service import IService
from twisted.internet.interfaces import IReactorUNIX
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from p2pdist.addresses import ANY, HostPort, parse_host_port
from p2pdist.config import Config, default_state_dir, parse_limits, parse_listen, parse_port
from p2pdist.control import Control, ControlService
from p2pdist.daemon.inherited import inherited_by_process
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.errors import ConfigurationError, P2PDistError
from p2pdist.faces.configfile import config_option, read_config
from p2pdist.faces.duties import Duties, read_duties, take_up
from p2pdist.faces.process import asked_signers, steady
from p2pdist.limits import DEFAULT_PORT
from p2pdist.logs import verbose
from p2pdist.machine import real_machine
from p2pdist.ports import Inherited
from p2pdist.secretfile import read_secret_file
from p2pdist.service import P2PDistService
from p2pdist.swarm.throttle import RateLimits

EXIT_USAGE = 2


def refuse(text: str, exit_code: int) -> NoReturn:
    """End the process with one line."""
    sys.stderr.write(f"p2pdist: {text}\n")
    raise SystemExit(exit_code)


class Options(UsageOptions):
    """What ``twistd p2pdist --help`` shows.

    Attributes:
        descriptors: parsed, in the order given.
        parser: of these and of every later descriptor: it knows whose signatures are demanded.
        config: what describes the node.
        duties: what else the process does.
        inherited: sockets that were handed over; then they say where it listens.
        files: of descriptors, in the order given.

    Args:
        again: read for a node that runs: sockets and descriptors are left alone.
    """

    synopsis = "[--descriptor FILE.desc]... [options]"
    longdesc = (
        "Fetches and seeds the contents of the descriptors. Without any descriptor this is a bare "
        "overlay node, good enough for others to find each other through it."
    )
    optParameters = (
        ("config", None, None, "File with any of these options, in TOML; see docs/operations.md."),
        ("directory", "d", ".", "Folder for downloads, and where complete files are looked for."),
        ("port", "p", str(DEFAULT_PORT), "UDP and TCP port; 0 takes any free one."),
        (
            "state-dir",
            "s",
            None,
            "Folder for the node's key and records [$STATE_DIRECTORY, or ~/.local/state/p2pdist].",
        ),
        ("watch", None, None, "Folder whose *.desc files are followed: added, changed, removed."),
        ("on-complete", None, None, "Command run once for each complete content; no shell."),
        ("exit-when", None, None, "End by itself: done, seeded:RATIO, fleet-done or fleet-done:N."),
        ("name", None, None, "What the fleet calls this machine [its host name]."),
        ("web", None, None, "Show a page, an API and metrics on this port, for this machine only."),
        ("allowed-signers", None, None, "Refuse descriptors none of these signed; see ssh-keygen."),
        ("revoked-keys", None, None, "Refuse these public keys, one a line, all the same."),
    )
    optFlags = (
        ("no-lan", None, "Do not look for nodes on the local network."),
        ("verbose", "v", "Log single messages too."),
    )

    def __init__(self, *, again: bool = False) -> None:
        super().__init__()
        self._again = again
        self._given: list[str] = []
        self.descriptors: list[Descriptor] = []
        self.parser = DescriptorParser()
        self.config = Config()
        self.duties = Duties()
        self.inherited: tuple[Inherited, ...] = ()
        self.files: list[str] = []
        self._listen: list[str] = []
        self._nodes: list[str] = []
        self._secret_files: list[str] = []
        self._upload_limits: list[str] = []
        self._download_limits: list[str] = []
        self._uploads: dict[str, int | None] = {}
        self._downloads: dict[str, int | None] = {}

    def opt_descriptor(self, path: str) -> None:
        """Descriptor file; may be repeated."""
        self.files.append(path)

    def opt_listen(self, address: str) -> None:
        """IP address to listen on [all of this machine]; may be repeated."""
        self._listen.append(address)

    def opt_node(self, address: str) -> None:
        """HOST:PORT of a node to ask first, besides those of descriptors; may be repeated."""
        self._nodes.append(address)

    def opt_secret_file(self, path: str) -> None:
        """File with the secret of a private network to serve without content; may be repeated."""
        self._secret_files.append(path)

    def opt_upload_limit(self, rate: str) -> None:
        """Most to send per second, such as 10MB; NAME=10MB for one content; may be repeated."""
        self._upload_limits.append(rate)

    def opt_download_limit(self, rate: str) -> None:
        """Most to receive per second, likewise; may be repeated."""
        self._download_limits.append(rate)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse; what is wrong ends the process with one line."""
        try:
            self._parse(sys.argv[1:] if options is None else list(options))
        except UsageError as error:
            refuse(f"{error}; see twistd p2pdist --help", EXIT_USAGE)
        except P2PDistError as error:
            refuse(str(error), error.exit_code)

    def _parse(self, given: list[str]) -> None:
        self._given = given
        file = config_option(given)
        written = [] if file is None else self._read_config(file)
        super().parseOptions(written + given)

    def read_again(self) -> Options:
        """Return the same options read anew, but for descriptors and sockets. Blocks.

        Raises:
            P2PDistError: they cannot be used.
        """
        fresh = Options(again=True)
        try:
            fresh._parse(self._given)
        except UsageError as error:
            raise ConfigurationError(str(error)) from error
        return fresh

    @property
    def fixed(self) -> dict[str, object]:
        """What only a restart changes, by option."""
        names = (
            *("directory", "port", "state-dir", "watch", "on-complete", "exit-when", "name"),
            *("web", "no-lan", "verbose"),
        )
        values = {f"--{name}": self[name] for name in names}
        return {**values, "--listen": self._listen, "--node": self._nodes}

    def _read_config(self, file: str) -> list[str]:
        """Return the options that a file holds."""
        known = {name.rstrip("="): name.endswith("=") for name in self.longOpt}
        for name in ("config", "help", "version"):
            known.pop(name, None)
        repeated = {name for name in known if hasattr(self, f"opt_{name.replace('-', '_')}")}
        return read_config(file, known, repeated)

    def postOptions(self) -> None:
        """Check everything that can be checked before the process is set up."""
        signers = asked_signers(self["allowed-signers"], self["revoked-keys"])
        self.parser = DescriptorParser(signers)
        if not self._again:
            self.descriptors = [self.parser.parse_file(path) for path in self.files]
        self.duties = read_duties(self["watch"], self["on-complete"], self["exit-when"])
        rates = self._read_limits()
        state_dir = self["state-dir"] or default_state_dir(dict(os.environ))
        self.config = Config(
            directory=existing_folder(self["directory"]),
            port=parse_port(self["port"]),
            listen=self._addresses(),
            state_dir=os.path.abspath(state_dir),  # noqa: PTH100 -- keeps links
            nodes=tuple(parse_node(text) for text in self._nodes),
            lan=not self["no-lan"],
            rates=rates,
            name=self["name"] or socket.gethostname(),
            web=None if self["web"] is None else parse_port(self["web"], "--web"),
            secrets=tuple(
                dict.fromkeys(
                    secret for path in self._secret_files for secret in read_secret_file(path)
                )
            ),
        )

    def _addresses(self) -> tuple[str, ...]:
        """Return what to listen on: of sockets that were handed over, or as options say."""
        self.inherited = () if self._again else inherited_by_process()
        named = tuple(dict.fromkeys(parse_listen(text) for text in self._listen))
        if not self.inherited:
            return named
        if named:
            raise ConfigurationError("--listen: sockets were handed over; they have addresses")
        hosts = tuple(pair.interface for pair in self.inherited)
        return () if ANY.intersection(hosts) else hosts

    def _read_limits(self) -> RateLimits:
        """Note the limits of single contents, and return those of the process."""
        for option, given, rates in (
            ("--upload-limit", self._upload_limits, self._uploads),
            ("--download-limit", self._download_limits, self._downloads),
        ):
            rates.update(parse_limits(given, option))
            known = {name for descriptor in self.descriptors for name in names_of(descriptor)}
            unknown = rates.keys() - known - {""}
            for name in () if self.duties.watch or self._again else unknown:  # it may come later
                there = ", ".join(map(ascii, sorted(known))) or "none"
                raise ConfigurationError(
                    f"{option} {name[:80]!a}: no content or descriptor is called that; "
                    f"there is {there}"
                )
        return RateLimits(upload=self._uploads.get(""), download=self._downloads.get(""))

    def rates_of(self, descriptor: Descriptor) -> RateLimits | None:
        """Return what one content may move, if an option names it."""
        upload, download = (
            next((rates[name] for name in names_of(descriptor) if rates.get(name)), None)
            for rates in (self._uploads, self._downloads)
        )
        return RateLimits(upload=upload, download=download) if upload or download else None


def names_of(descriptor: Descriptor) -> tuple[str, ...]:
    """Return what an option may call a content: its name, if known, and its descriptor's file.

    The file with or without its folder: a configuration file makes paths whole.
    """
    file = os.path.basename(descriptor.source)  # noqa: PTH119 -- text
    return tuple(dict.fromkeys(filter(None, (descriptor.name, descriptor.source, file))))


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


def add_page(service: P2PDistService, control: Control, reactor: Any, port: int) -> None:
    """Let the service show its page, and tell whoever started it where it is."""
    from p2pdist.web.service import WebService  # its imports cost start-up time

    page = WebService(reactor, control, port, service.web_token())
    page.bind()
    page.setServiceParent(service)
    if sys.stdout.isatty():  # the address holds the key: a log that others read never gets it
        sys.stdout.write(f"{page.url}\n")


def makeService(options: Options) -> IService:
    """Build the service, lock its state and open its ports.

    An error ends the process with one line and the exit code of its class.
    """
    from twisted.internet import reactor  # noqa: TID251 -- the one place that may

    if options["verbose"]:
        verbose()
    try:
        machine = real_machine(steady(reactor))
        service = P2PDistService(options.config, machine)
        for descriptor in options.descriptors:
            service.add(descriptor, rates=options.rates_of(descriptor))
        service.added.take(service.added.read(options.parser), service.contents)
        control = Control(service, options.parser)
        if options.config.web is not None:
            add_page(service, control, reactor, options.config.web)
        if options.config.state_dir is not None:
            ControlService(
                cast(IReactorUNIX, reactor), control, options.config.state_dir
            ).setServiceParent(service)
        service.inherited = options.inherited
        take_up(options.duties, service, options, machine)
        service.bind()
    except P2PDistError as error:
        refuse(str(error), error.exit_code)
    return service
