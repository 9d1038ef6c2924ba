"""What the engine asks of its driver, or tells it. Values without behaviour, handed out by `Engine.take_effects`.

The driver of a node acts on each in one place; nothing in `core` calls back.
"""

from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from onionrelay.base.ids import RelayId
    from onionrelay.core.circuit.end import CircuitEnd
    from onionrelay.core.circuit.hop import Hop
    from onionrelay.core.circuit.origin import Origin
    from onionrelay.core.link.channel import Channel
    from onionrelay.core.link.handshake import Peer
    from onionrelay.wire.address import Endpoint
    from onionrelay.wire.build import BuildStatus

# msgspec and not dataclasses: one MessageArrived is made for each cell of a bulk transfer, and it costs a sixth.


class LinkUp(msgspec.Struct, frozen=True):
    """The link handshake is complete; `peer` says with whom. From here on circuits may be opened over the channel."""

    channel: "Channel"
    peer: "Peer"


class LinkClosing(msgspec.Struct, frozen=True):
    """This end gives the link up. Send what its outbox still holds as far as that goes at once, then close it.

    `refused`: the link handshake showed that the two ends do not belong together.
    """

    channel: "Channel"
    why: str
    refused: bool = False


class NextHopWanted(msgspec.Struct, frozen=True):
    """A relay asks for a link to the next relay of a circuit: answer with `offer_next` or `refuse_next`."""

    hop: "Hop"
    relay_id: "RelayId"
    endpoint: "Endpoint"


class CircuitOpened(msgspec.Struct, frozen=True):
    """Every hop of the client's circuit answered; messages may be sent."""

    origin: "Origin"


class CircuitRefused(msgspec.Struct, frozen=True):
    """The client's circuit was not built and is gone.

    `hop` counts from 1: the hop that refused, authenticated when `status` is set. 0: it cannot be said which. A refusal
    by hop k with a NEXT_* status says as much about hop k + 1 (specs/03-build.md, "Statuses, timers, blame").
    """

    origin: "Origin"
    hop: int
    status: "BuildStatus | None"
    why: str


class CircuitEnded(msgspec.Struct, frozen=True):
    """An open circuit that ended here is gone, and not because this end closed it."""

    end: "CircuitEnd"
    why: str


class EndpointReached(msgspec.Struct, frozen=True):
    """A client's circuit ends at this node or relay and is open."""

    hop: "Hop"


class MessageArrived(msgspec.Struct, frozen=True):
    """One whole relay message. `hop`: who sent it, counted from 1, at the client; 0, the client, at an endpoint."""

    end: "CircuitEnd"
    hop: int
    cmd: int
    rid: int
    data: bytes


class RoomToSend(msgspec.Struct, frozen=True):
    """`can_send` had said no to this end, and would now say yes."""

    end: "CircuitEnd"


class ControlArrived(msgspec.Struct, frozen=True):
    """One whole control message of ATTACH, DHT, DIR or REACH: `body` is what the decoder of (cmd, type) takes."""

    channel: "Channel"
    cmd: int
    type: int
    body: bytes


Effect: TypeAlias = (
    LinkUp
    | LinkClosing
    | NextHopWanted
    | CircuitOpened
    | CircuitRefused
    | CircuitEnded
    | EndpointReached
    | MessageArrived
    | RoomToSend
    | ControlArrived
)
