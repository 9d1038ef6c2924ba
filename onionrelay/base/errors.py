"""Every error of onionrelay, in one tree.

::

    OnionRelayError
      ├── ProtocolViolation          the peer's fault: it broke specs/; carries the reason code that goes on the wire
      │     ├── MalformedMessage     bytes that are no message of the kind expected
      │     ├── BadSignature         a signature that does not verify
      │     ├── BadRecord            a descriptor, voucher or reach record that does not hold
      │     └── BuildUnopenable      a build message that none of our onion keys opens
      ├── UsageError (ValueError)    the caller's fault: a bad id, file, option or argument
      │     ├── InvalidId
      │     └── ConfigError
      ├── MissingPrimitive (ImportError)   the installed `cryptography` cannot do what the protocol needs
      ├── HomeError (OSError)        the home folder cannot be read, written or locked
      └── NetworkError (OSError)     the world's fault: what was tried did not work
            ├── NoNetwork            there is no network file, or none of its seeds answers
            ├── LinkRefused          one end of a link refused the other
            ├── NodeNotFound         no relay knows a valid record of the node
            ├── NoPath               no path meets the constraints, or anonymity is below the minimum
            ├── CircuitFailed        a circuit could not be built; names hop and reason
            ├── CircuitLost          (ConnectionResetError) an open circuit ended
            ├── StreamReset          (ConnectionResetError) the other end gave the stream up
            ├── StreamRefused        (ConnectionRefusedError) the target answered and said no
            └── TimedOut             (TimeoutError) names the stage

A peer is told a reason code only; these messages are for the person at this machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class OnionRelayError(Exception):
    """The root of all errors that onionrelay raises on purpose."""


class DestroyReason(IntEnum):
    """Why a circuit is torn down: the reason byte of DESTROY (specs/02-wire.md). Forwarded as NONE."""

    NONE = 0
    PROTOCOL = 1  # the peer broke the protocol on this circuit
    UNOPENABLE = 2  # a build record that no key here opens
    BUSY = 3  # shed before any decapsulation
    FINISHED = 4  # ended by its user
    TIMEOUT = 5
    LINK_LOST = 6
    RESOURCES = 7  # queue or memory limit
    UNKNOWN_CIRCUIT = 8
    SHUTDOWN = 9


class ProtocolViolation(OnionRelayError):
    """The peer sent what specs/ forbids. The link or circuit it came on is closed with `reason`."""

    def __init__(self, message: str, reason: DestroyReason = DestroyReason.PROTOCOL) -> None:
        super().__init__(message)
        self.reason = reason


class MalformedMessage(ProtocolViolation):
    """Bytes that do not decode as the message they claim to be."""


class BadSignature(ProtocolViolation):
    """A signature that does not verify under the key, thing and body it is given for."""


class BadRecord(ProtocolViolation):
    """A descriptor, voucher or reach record that is well formed and does not hold; the message is the reason."""


class BuildUnopenable(ProtocolViolation):
    """A build message whose first record no onion key here opens. Answered by DESTROY: no keys to say more."""

    def __init__(self, message: str) -> None:
        super().__init__(message, DestroyReason.UNOPENABLE)


class UsageError(OnionRelayError, ValueError):
    """The caller asked for something that cannot be meant."""


class InvalidId(UsageError):
    """Text or bytes that are no node id, relay id or public key."""


class ConfigError(UsageError):
    """A network file, invite, key file or setting that cannot be used."""


class MissingPrimitive(OnionRelayError, ImportError):
    """The installed `cryptography` was built without a primitive the protocol needs."""


class HomeError(OnionRelayError, OSError):
    """The home folder cannot be read, written or locked."""


class NetworkError(OnionRelayError, OSError):
    """What was tried did not work, and neither the caller nor a protocol breach is to blame.

    An OSError, as programs that know only sockets expect of a connection that fails. It has no errno.
    """


class NoNetwork(NetworkError):
    """No network file, or nobody in it answers."""


class LinkRefused(NetworkError):
    """One end of a link refused the other in the link handshake (specs/10-tls-links.md).

    At the server, `answer` holds the cells that tell the client; they are sent before the link closes.
    """

    def __init__(self, reason: str, answer: bytes = b"") -> None:
        super().__init__(f"link refused: {reason}")
        self.reason = reason
        self.answer = answer


class NodeNotFound(NetworkError):
    """No relay that was asked holds a valid record of this node."""


class NoPath(NetworkError):
    """No path meets the constraints of specs/07, or its anonymity is below the minimum asked for."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One path that was tried for a circuit: where it broke and why.

    `hop` counts from 1; 0: it cannot be said where, and `relay` is the path's last. `status` is the hop's own answer in
    one word or two, sealed by it; empty: it gave none, and `reason` is what was seen from here.
    """

    hop: int
    relay: str
    role: str
    reason: str
    status: str = ""

    def __str__(self) -> str:
        where = f"hop {self.hop} ({self.role} {self.relay})" if self.hop else f"{self.role} {self.relay}"
        return f"{where}: {self.reason}"


class CircuitFailed(NetworkError):
    """No circuit could be built. `attempts`: every path tried; `hop` and `reason` are the last one's."""

    def __init__(self, message: str, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__("; ".join([message, *map(str, attempts)]))
        self.attempts = tuple(attempts)
        self.hop = attempts[-1].hop if attempts else 0
        self.reason = attempts[-1].reason if attempts else message


class CircuitLost(NetworkError, ConnectionResetError):
    """An open circuit ended under its streams. `reason` says what died as far as this end can know."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StreamReset(NetworkError, ConnectionResetError):
    """The other end gave the stream up, or its service broke. `reason` is the code's name, as in "SERVICE_LOST"."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class StreamRefused(NetworkError, ConnectionRefusedError):
    """The target was reached and refused the stream. `reason` is the code's name, as in "NO_SUCH_PORT"."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class TimedOut(NetworkError, TimeoutError):
    """A stage took longer than its limit. `stage` is what was being waited for."""

    def __init__(self, stage: str, seconds: float) -> None:
        super().__init__(f"{stage} took longer than {seconds:g} s")
        self.stage = stage
        self.seconds = seconds
