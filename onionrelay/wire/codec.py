"""Reading and writing of the fixed-field structures of specs/02-wire.md, shared by every module of this floor.

All integers are big-endian. A body is read once, front to back; each length is checked before the bytes it announces
are touched, so a decoder is total: it returns a value or raises MalformedMessage.
"""

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise
from typing import NoReturn, TypeAlias, TypeVar

from onionrelay.base.errors import InvalidId, MalformedMessage, UsageError
from onionrelay.base.ids import Ed25519Point

Buffer: TypeAlias = bytes | bytearray | memoryview
Extensions: TypeAlias = tuple[tuple[int, bytes], ...]
"""(type, value) pairs in strictly ascending order of type; bit 15 of a type marks it as critical."""

KEY = 32
SIGNATURE = 64
CRITICAL = 0x8000
EXTENSION_HEADER = 4  # type u16 | length u16

K = TypeVar("K", bound=Ed25519Point)
E = TypeVar("E", bound=Enum)


def is_zero(view: Buffer) -> bool:
    """Whether every byte is zero. Not for secrets: it may stop early."""
    return not bytes(view).lstrip(b"\0")


class Reader:
    """Takes the fields of one structure from its bytes. `what` names the structure in errors."""

    __slots__ = ("_at", "_body", "_what")

    def __init__(self, body: Buffer, what: str) -> None:
        self._body = bytes(body)
        self._what = what
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._body) - self._at

    def fail(self, why: str) -> NoReturn:
        """Reject the structure."""
        raise MalformedMessage(f"{self._what}: {why}")

    def require(self, held: bool, why: str) -> None:
        """Reject the structure unless a rule of its layout is kept."""
        if not held:
            self.fail(why)

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > self.left:
            self.fail(f"{size} bytes expected, {self.left} left")
        start, self._at = self._at, self._at + size
        return self._body[start : self._at]

    def u8(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """The next 2 bytes."""
        return int.from_bytes(self.take(2))

    def u32(self) -> int:
        """The next 4 bytes."""
        return int.from_bytes(self.take(4))

    def u64(self) -> int:
        """The next 8 bytes."""
        return int.from_bytes(self.take(8))

    def key(self, kind: type[K]) -> K:
        """The next 32 bytes as a public key, checked to be a canonical point of prime order."""
        raw = self.take(KEY)
        try:
            return kind.decode(raw)
        except InvalidId as exc:
            raise MalformedMessage(f"{self._what}: not a valid {kind.__name__}") from exc

    def enum(self, kind: type[E], value: int) -> E:
        """The member of a closed set that has this value."""
        try:
            return kind(value)
        except ValueError as exc:
            raise MalformedMessage(f"{self._what}: {value} is no {kind.__name__}") from exc

    def zeros(self, size: int) -> None:
        """Skip reserved bytes, which are zero."""
        if not is_zero(self.take(size)):
            self.fail("a reserved byte is not zero")

    def version(self, known: int) -> None:
        """Skip the version byte of a structure that stands alone."""
        if self.u8() != known:
            self.fail("unknown version")

    def numbers(self, most: int) -> tuple[int, ...]:
        """A list of 1 to `most` distinct u16 in ascending order: count u8 | u16 each."""
        count = self.u8()
        self.require(1 <= count <= most, f"1 to {most} entries expected, {count} announced")
        values = tuple(self.u16() for _ in range(count))
        self.require(all(a < b for a, b in pairwise(values)), "a list is not in ascending order")
        return values

    def extensions(self, keep: int = 0) -> Extensions:
        """The extension list: all that is left but the last `keep` bytes. This version knows no critical one."""
        end = len(self._body) - keep
        found: list[tuple[int, bytes]] = []
        last = -1
        while self._at < end:
            kind, size = self.u16(), self.u16()
            self.require(kind > last, "extensions are not in ascending order")
            self.require(not kind & CRITICAL, f"unknown critical extension {kind}")
            self.require(size <= end - self._at, "an extension overruns its list")
            found.append((kind, self.take(size)))
            last = kind
        return tuple(found)

    def counted_extensions(self) -> Extensions:
        """An extension list with its length in front (u16), where other fields or padding follow."""
        size = self.u16()
        self.require(size <= self.left, "the extension list overruns the structure")
        return self.extensions(keep=self.left - size)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)

    def padding(self) -> None:
        """All that is left is zero."""
        if not is_zero(self.rest()):
            self.fail("padding is not zero")

    def done(self) -> None:
        """Nothing may be left."""
        if self.left:
            self.fail(f"{self.left} trailing bytes")


class Writer:
    """Builds the bytes of one structure; every method returns the writer, so a layout reads as one chain.

    A value that does not fit its field is the caller's mistake: UsageError, or OverflowError from an integer.
    """

    __slots__ = ("_out",)

    def __init__(self) -> None:
        self._out = bytearray()

    def u8(self, value: int) -> "Writer":
        """Append 1 byte."""
        self._out += value.to_bytes(1)
        return self

    def u16(self, value: int) -> "Writer":
        """Append 2 bytes."""
        self._out += value.to_bytes(2)
        return self

    def u32(self, value: int) -> "Writer":
        """Append 4 bytes."""
        self._out += value.to_bytes(4)
        return self

    def u64(self, value: int) -> "Writer":
        """Append 8 bytes."""
        self._out += value.to_bytes(8)
        return self

    def fixed(self, value: Buffer, size: int) -> "Writer":
        """Append a field of exactly `size` bytes."""
        if len(value) != size:
            raise UsageError(f"a field of {size} bytes was given {len(value)}")
        self._out += value
        return self

    def key(self, key: Ed25519Point) -> "Writer":
        """Append a public key."""
        return self.fixed(key.raw, KEY)

    def raw(self, value: Buffer) -> "Writer":
        """Append bytes whose length the layout states elsewhere."""
        self._out += value
        return self

    def zeros(self, size: int) -> "Writer":
        """Append reserved bytes."""
        self._out += bytes(size)
        return self

    def numbers(self, values: Sequence[int]) -> "Writer":
        """Append a list of u16: count u8 | u16 each."""
        self.u8(len(values))
        for value in values:
            self.u16(value)
        return self

    def extensions(self, extensions: Extensions) -> "Writer":
        """Append an extension list."""
        for kind, value in extensions:
            self.u16(kind).u16(len(value)).raw(value)
        return self

    def counted_extensions(self, extensions: Extensions) -> "Writer":
        """Append an extension list with its length in front (u16)."""
        return self.u16(sum(EXTENSION_HEADER + len(value) for _, value in extensions)).extensions(extensions)

    def padded(self, size: int) -> bytes:
        """The structure, filled up with zeros to `size` bytes."""
        if len(self._out) > size:
            raise UsageError(f"a structure of at most {size} bytes came to {len(self._out)}")
        return bytes(self._out.ljust(size, b"\0"))

    def exactly(self, size: int) -> bytes:
        """The structure, which must have come to `size` bytes."""
        if len(self._out) != size:
            raise UsageError(f"a structure of {size} bytes came to {len(self._out)}")
        return bytes(self._out)

    def done(self) -> bytes:
        """The structure."""
        return bytes(self._out)
