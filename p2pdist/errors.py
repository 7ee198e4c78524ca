"""The exception tree. Attributes carry the facts; ``str(error)`` is the sentence shown to people.

Local errors are bugs of ours and are raised loudly. Remote errors are counted, blamed on the
peer and logged at debug level, never with a traceback. Decoders raise
:class:`RemoteProtocolError` or return a value, nothing else.

Exit codes (``docs/operations.md``): each class names the one its escape to the command line gives.
"""

from __future__ import annotations

from typing import ClassVar

from p2pdist.secret import hide


class P2PDistError(Exception):
    """Something p2pdist does not recover from by itself."""

    exit_code: ClassVar[int] = 1


class DescriptorError(P2PDistError):
    """The descriptor cannot be used.

    Attributes:
        source: file name or ``"descriptor"``.
        line: 1-based line, or ``None`` where the error has none (a missing field).
        field: the key at fault, or ``None`` for a syntax error.
        reason: what is wrong.
        remedy: what to do about it.
    """

    exit_code = 2

    def __init__(
        self,
        reason: str,
        *,
        remedy: str,
        source: str = "descriptor",
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.source = source
        self.line = line
        self.field = field
        self.reason = hide(reason)
        self.remedy = remedy
        where = source if line is None else f"{source}:{line}"
        what = "" if field is None else f"{field}: "
        # A secret may stand in the wrong place, and reasons quote what stands there.
        super().__init__(hide(f"{where}: {what}{reason}; {remedy}"))


class UntrustedDescriptor(DescriptorError):
    """No signer that is asked for signed the descriptor."""


class ConfigurationError(P2PDistError):
    """An option, address, port or folder given to this process cannot be used."""

    exit_code = 4


class AlreadyRunning(P2PDistError):
    """Another process holds the state directory or the download."""

    exit_code = 5


class ProtocolError(P2PDistError):
    """A rule of the protocol was broken."""


class LocalProtocolError(ProtocolError):
    """We were about to break a rule: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """The other side broke a rule.

    Attributes:
        rule: short stable name of the rule, used as the key of drop counters.
    """

    def __init__(self, rule: str, detail: str = "") -> None:
        self.rule = rule
        super().__init__(f"{rule}: {detail}" if detail else rule)


class MalformedMessage(RemoteProtocolError):
    """Bytes that are no message of ours."""


class OversizedMessage(RemoteProtocolError):
    """A message or frame above its bound."""


class UnexpectedMessage(RemoteProtocolError):
    """A well-formed message at a moment when it may not come."""


class AuthenticationFailed(RemoteProtocolError):
    """A proof, signature or sealed datagram did not verify."""


class RPCError(P2PDistError):
    """A call to another node did not succeed.

    Attributes:
        address: ``(host, port)`` that was called.
        method: name of the method.
    """

    def __init__(self, address: tuple[str, int], method: str, text: str) -> None:
        self.address = address
        self.method = method
        super().__init__(f"{method} to {address[0]}:{address[1]} {text}")


class RequestTimedOut(RPCError):
    """No reply to any try."""

    def __init__(
        self, address: tuple[str, int], method: str, *, attempts: int, elapsed_s: float
    ) -> None:
        self.attempts = attempts
        self.elapsed_s = elapsed_s
        super().__init__(address, method, f"got no answer to {attempts} tries in {elapsed_s:.2f} s")


class RequestRefused(RPCError):
    """The other node answered with an error code.

    Attributes:
        code: number from :class:`p2pdist.overlay.messages.ErrorCode`.
    """

    def __init__(self, address: tuple[str, int], method: str, *, code: int) -> None:
        self.code = code
        super().__init__(address, method, f"was refused with code {code}")


class CalledOneself(RPCError):
    """The address is one of this node's own."""

    def __init__(self, address: tuple[str, int], method: str) -> None:
        super().__init__(address, method, "came back: this is the node itself")


class CallLimitReached(RPCError):
    """Too many calls are under way already, in all or to this address; ours to wait for."""

    def __init__(self, address: tuple[str, int], method: str) -> None:
        super().__init__(address, method, "was not sent: too many calls are under way")


class NodeStopped(P2PDistError):
    """The node stopped before this could finish."""


class NoPeersFound(P2PDistError):
    """Nobody who answered knows a peer of this content.

    Attributes:
        asked: nodes asked.
        answered: nodes that answered.
        elapsed_s: seconds spent.
    """

    exit_code = 3

    def __init__(self, *, asked: int, answered: int, elapsed_s: float, told: str = "") -> None:
        self.asked = asked
        self.answered = answered
        self.elapsed_s = elapsed_s
        detail = f" ({told})" if told else ""
        super().__init__(
            f"no peer found in {elapsed_s:.0f} s: {asked} node{'' if asked == 1 else 's'} asked, "
            f"{answered} answered{detail}"
        )


class StorageError(P2PDistError):
    """The disk, a file or a folder cannot be used as asked."""

    exit_code = 4


class HashMismatch(StorageError):
    """A piece's bytes are not what the metadata promises.

    Attributes:
        index: the piece.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        super().__init__(f"piece {index} does not match its hash")


class DiskTrouble(StorageError):
    """The disk or the system refuses for now; the same may work a moment later."""


class DiskFull(DiskTrouble):
    """No space left where the download goes."""


class ContentConflict(StorageError):
    """The target exists and holds something else."""


class UnsafeName(P2PDistError):
    """A file name from outside that must not be opened.

    Attributes:
        name: the offending name (may hold anything: escape before printing).
        reason: which rule it breaks.
    """

    exit_code = 2

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"unsafe file name {name[:80]!a}: {reason}")
