"""A private transfer between real processes, with somebody in between who keeps every byte.

What he kept, and what the processes' command lines, environments, logs and statuses say, is
searched for the secret, the keys made from it, and what the content is and is called.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor as global_reactor  # noqa: TID251 -- processes need the real one
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import (
    ClientFactory,
    DatagramProtocol,
    Factory,
    Protocol,
    connectionDone,
)
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from p2pdist.descriptor import DescriptorParser
from p2pdist.faces.cli.demo import TwistdProcess
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys, topic_of
from p2pdist.overlay.envelope import HEADER_BYTES, read_header
from p2pdist.test.needles import found, keys_of
from p2pdist.test.support import unmeasured
from p2pdist.test.test_e2e import DEADLINE_S, command

reactor: Any = global_reactor
NAME = "weights-nobody-must-know-of.bin"


@define(eq=False)
class Proxy:
    """One port, UDP and TCP, behind which another one stands; it keeps what passes.

    Attributes:
        target: the other port.
        port: its own.
        datagrams: everything over UDP, either way.
        streams: each direction of each TCP connection.
    """

    target: int
    port: int = 0
    datagrams: list[bytes] = field(factory=list)
    streams: list[bytearray] = field(factory=list)
    _open: list[Any] = field(factory=list)

    def start(self) -> None:
        """Open both."""
        self._open.append(reactor.listenUDP(0, _Datagrams(self), interface="127.0.0.1"))
        self.port = self._open[0].getHost().port
        factory = Factory.forProtocol(lambda: _Stream(self))
        self._open.append(reactor.listenTCP(self.port, factory, interface="127.0.0.1"))

    def opened(self, port: Any) -> None:
        """Close this too at the end."""
        self._open.append(port)

    def stop(self) -> Deferred[Any]:
        """Close everything."""
        return gatherResults([port.stopListening() for port in self._open])


class _Datagrams(DatagramProtocol):
    """Passes datagrams on: each sender has a socket of its own on the other side."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._behind: dict[tuple[str, int], _Back] = {}

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """On to the target."""
        self._proxy.datagrams.append(datagram)
        if addr not in self._behind:
            self._behind[addr] = back = _Back(self._proxy, self, addr)
            self._proxy.opened(reactor.listenUDP(0, back, interface="127.0.0.1"))
        transport: Any = self._behind[addr].transport
        transport.write(datagram, ("127.0.0.1", self._proxy.target))


class _Back(DatagramProtocol):
    """One sender's socket."""

    def __init__(self, proxy: Proxy, front: _Datagrams, sender: tuple[str, int]) -> None:
        self._proxy, self._front, self._sender = proxy, front, sender

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Back to the sender."""
        del addr
        self._proxy.datagrams.append(datagram)
        transport: Any = self._front.transport
        transport.write(datagram, self._sender)


class _Stream(Protocol):
    """One side of a connection; the accepted one dials the other."""

    def __init__(self, proxy: Proxy, other: _Stream | None = None) -> None:
        self._proxy = proxy
        self._other = other
        self._dials = other is None
        self._kept = bytearray()
        self._waiting = b""
        proxy.streams.append(self._kept)

    def connectionMade(self) -> None:
        """Dial, or say what waited for this."""
        if self._dials:
            factory = ClientFactory.forProtocol(self.paired)
            factory.noisy = False
            reactor.connectTCP("127.0.0.1", self._proxy.target, factory)
        elif self._other is not None:
            self._other.dataReceived(b"")

    def paired(self) -> _Stream:
        """Make the other side."""
        self._other = _Stream(self._proxy, self)
        return self._other

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        self._kept += data
        self._waiting += data
        transport: Any = None if self._other is None else self._other.transport
        if transport is not None:
            transport.write(self._waiting)
            self._waiting = b""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the other side too."""
        del reason
        transport: Any = None if self._other is None else self._other.transport
        if transport is not None:
            transport.loseConnection()


class PrivateTests(TestCase):
    """A seed, a downloader, a secret file, and somebody in between."""

    timeout = DEADLINE_S

    def setUp(self):
        """Make a folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="p2pdist"))  # a short path, for control sockets
        self.addCleanup(shutil.rmtree, self.folder)
        self.processes: list[TwistdProcess] = []
        self.addCleanup(lambda: gatherResults([process.stop() for process in self.processes]))

    def twistd(self, name: str, *options: str) -> TwistdProcess:
        """Start ``twistd -n p2pdist`` with all it can tell."""
        process = TwistdProcess(name, self.folder / name)
        self.processes.append(process)
        process.start(reactor, *options, "--no-lan", "--verbose", "--web", "0")
        return process

    async def test_nothing_gets_out(self):
        """The copy is equal, and nothing of secret, keys, name or bytes is to be seen anywhere."""
        unmeasured(self)
        original = self.folder / "seed" / NAME
        original.parent.mkdir()
        original.write_bytes(random.Random(3).randbytes(3_000_000))
        described = self.folder / "it.desc"
        secret_file = self.folder / "swarm.secret"
        out, errors, code = await command(
            *("make", str(original), "--secret-file", str(secret_file)),
            *("--output", str(described), "--json"),
        )
        self.assertEqual((0, b""), (code, errors))
        seed = self.twistd("seed", "--descriptor", str(described))
        proxy = Proxy(await seed.listening)
        await seed.complete
        proxy.start()
        self.addCleanup(proxy.stop)
        node = ("--node", f"127.0.0.1:{proxy.port}")
        leech = self.twistd("leech", "--descriptor", str(described), *node)
        await leech.complete
        self.assertEqual(original.read_bytes(), (leech.folder / NAME).read_bytes())
        self.assertGreater(max(map(len, proxy.streams)), 3_000_000)
        told = [out, *await self.told()]
        self.check(described, original, proxy, told)

    async def told(self) -> list[bytes]:
        """Return all that the processes say of themselves."""
        told = []
        for process in self.processes:
            assert process.transport is not None
            process._log.flush()
            own = Path("/proc") / str(process.transport.pid)
            told += [(own / name).read_bytes() for name in ("cmdline", "environ")]
            state = self.folder / f"{process.name}.state"
            out, errors, code = await command("status", "--state-dir", str(state), "--json")
            self.assertEqual((0, b""), (code, errors))
            told.append(out)
            told += await deferToThread(self.web, process, state)
            told.append((self.folder / f"{process.name}.log").read_bytes())
        return told

    def web(self, process: TwistdProcess, state: Path) -> list[bytes]:
        """Return what the page's API says."""
        log = (self.folder / f"{process.name}.log").read_text()
        base = log.split("http://127.0.0.1:")[1].split("/")[0]
        token = (state / "web-token").read_text().strip()
        answers = []
        for path in ("/api/v1/status", "/api/v1/log", "/metrics"):
            request = urllib.request.Request(
                f"http://127.0.0.1:{base}{path}", headers={"Authorization": f"Bearer {token}"}
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                answers.append(answer.read())
        return answers

    def check(self, described: Path, original: Path, proxy: Proxy, told: list[bytes]) -> None:
        """Look for what must not be there."""
        descriptor = DescriptorParser().parse_file(str(described))
        (secret,) = descriptor.secrets
        keys = NetworkKeys.from_secret(secret.raw)
        headers = [read_header(one) for one in proxy.datagrams if len(one) > HEADER_BYTES]
        self.assertNotIn(PUBLIC_NETWORK.tag, {header.tag for header in headers})
        boots = {header.boot_id for header in headers}
        secrets = [*keys_of(secret, *boots), keys.knock_key(), keys.tcp_key(descriptor.hash_key)]
        data = original.read_bytes()
        content = [descriptor.hash_key, topic_of(descriptor.hash_key), NAME.encode()]
        content += [data[at : at + 32] for at in (0, 70_000, 1_000_000, 2_999_000)]
        for state in ("seed.state", "leech.state"):
            key_file = (self.folder / state / "node.key").read_bytes()
            self.assertNotIn(secret.raw, key_file)
        self.assertGreater(len(headers), 10)
        self.assertEqual(
            [], found([*proxy.datagrams, *map(bytes, proxy.streams)], secrets + content)
        )
        self.assertNotEqual([], found(told, [NAME.encode()]), "the statuses are statuses")
        self.assertEqual([], found(told, secrets))
