"""How a peer over TCP lies: what liars of the fault simulation and of single tests have in common.

Job: each function is an answer to a request, or a behaviour (``swarmfakes.Behaviour``). Does NOT
decide who lies (``faultliars``, ``test_hostile``). Tests: ``test_hostile``, ``test_sim_faults``.
"""

from __future__ import annotations

from collections.abc import Callable

from p2pdist.ids import PieceIndex
from p2pdist.swarm.messages import Block, Grant, Message, Reject, RejectReason, Request
from p2pdist.test.swarmfakes import Behaviour, Liar, honest


def on_request(answer: Callable[[Liar, int], None]) -> Behaviour:
    """Return an honest peer that answers requests differently."""

    def behave(liar: Liar, message: Message) -> None:
        if isinstance(message, Request):
            answer(liar, message.index)
        else:
            honest(liar, message)

    return behave


def wrong_bytes(liar: Liar, index: int) -> None:
    """Send a piece with any bit flipped, and grant the next."""
    data, chance = bytearray(liar.node.content.piece(index)), liar.node.host.rng
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    liar.send_piece(index, bytes(data))
    liar.say(Grant(PieceIndex(0)))


def half(liar: Liar, index: int) -> None:
    """Stop in the middle."""
    data = liar.node.content.piece(index)
    liar.say(Block(PieceIndex(index), 0, data[: max(1, len(data) // 2)]))


def drip(liar: Liar, index: int) -> None:
    """Send a byte a second, for a minute."""
    trickle(liar, index, 1, 60)


def trickle(liar: Liar, index: int, size: int, most: int | None = None) -> None:
    """Send ``size`` bytes of a piece a second, ``most`` of them at most."""
    data = liar.node.content.piece(index)[:most]

    def more(offset: int) -> None:
        if not liar.ended and offset < len(data):
            liar.say(Block(PieceIndex(index), offset, data[offset : offset + size]))
            liar.node.host.reactor.callLater(1.0, more, offset + size)

    more(0)


def reject(liar: Liar, index: int) -> None:
    """Not have it after all, and grant again."""
    liar.say(Reject(PieceIndex(index), RejectReason.GONE), Grant(PieceIndex(0)))


def silent(_liar: Liar, _message: Message) -> None:
    """Say nothing."""
