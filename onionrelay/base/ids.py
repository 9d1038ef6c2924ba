"""Public keys as names: each kind a type of its own, so that none passes for another. specs/01-identity.md.

A key that came from outside goes through `decode` (or `parse`) once and is a value of its type from then on; nothing
later checks it again.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from nacl.bindings import crypto_core_ed25519_is_valid_point

from onionrelay.base import bech32m
from onionrelay.base.errors import InvalidId

KEY_SIZE = 32
_VERSION = 0  # the first symbol of the text form, `q`
_TEXT_SYMBOLS = 53  # version 1 | 32 bytes as 52 symbols


@dataclass(frozen=True, slots=True, order=True, repr=False)
class Ed25519Point:
    """32 bytes that encode a point of Ed25519's prime-order group.

    The constructor trusts its argument apart from the length: it is for own keys and for bytes that were checked
    before. Values of different subclasses are never equal and do not compare.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_SIZE:
            raise InvalidId(f"a {self.kind()} is {KEY_SIZE} bytes, not {len(self.raw)}")

    @classmethod
    def decode(cls, raw: bytes | memoryview) -> Self:
        """Checks bytes from outside (35 us): canonical, on the curve, in the prime-order group; else InvalidId."""
        key = cls(bytes(raw))
        if not crypto_core_ed25519_is_valid_point(key.raw):
            raise InvalidId(f"no {cls.kind()}: these bytes are no point of the prime-order group of Ed25519")
        return key

    @classmethod
    def kind(cls) -> str:
        """What this is called in messages for people."""
        return "public key"

    def __bytes__(self) -> bytes:
        return self.raw

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.raw[:4].hex()}...)"


class SigningKey(Ed25519Point):
    """A relay's signing key: what its relay id certifies and what signs its links, descriptors and vouchers."""

    __slots__ = ()


class HandleKey(Ed25519Point):
    """A target's name at one final hop, for one attachment."""

    __slots__ = ()


class BlindedKey(Ed25519Point):
    """A node id blinded for one period: the name under which its reach records are stored."""

    __slots__ = ()


class RecordKey(Ed25519Point):
    """Signs the reach records of one period; certified by that period's blinded key."""

    __slots__ = ()


class _TextId(Ed25519Point):
    """A key that people pass around as one word of bech32m."""

    __slots__ = ()
    hrp: ClassVar[str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that `str` wrote; InvalidId says which rule the text breaks."""
        hrp, symbols = bech32m.decode(text)
        if hrp != cls.hrp:
            other = next((f", it is a {kind.kind()}" for kind in (NodeId, RelayId) if kind.hrp == hrp), "")
            raise InvalidId(f"a {cls.kind()} begins with {cls.hrp}1, this text with {hrp}1{other}")
        if not symbols or symbols[0] != _VERSION:
            raise InvalidId(f"this {cls.kind()} is of a version that this program does not know")
        if len(symbols) != _TEXT_SYMBOLS:
            raise InvalidId(f"a {cls.kind()} holds {KEY_SIZE} bytes: this text is too short or too long")
        return cls.decode(bech32m.from_symbols(symbols[1:]))

    def __str__(self) -> str:
        return bech32m.encode(self.hrp, [_VERSION, *bech32m.to_symbols(self.raw)])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)[:12]}...)"


class NodeId(_TextId):
    """What people type to reach a node; never in a public table. Text `onr1q...`, 63 characters."""

    __slots__ = ()
    hrp = "onr"

    @classmethod
    def kind(cls) -> str:
        """What this is called in messages for people."""
        return "node id"


class RelayId(_TextId):
    """A relay's permanent name, in its public descriptor. Text `onrr1q...`, 64 characters."""

    __slots__ = ()
    hrp = "onrr"

    @classmethod
    def kind(cls) -> str:
        """What this is called in messages for people."""
        return "relay id"
