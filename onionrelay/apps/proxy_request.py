"""What a program asks a proxy for, and how it hears the outcome: what SOCKS and HTTP CONNECT have in common. No I/O."""

import re
from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeAlias, TypeVar

T = TypeVar("T")
Parser: TypeAlias = Generator[None, None, T]
"""Reads from an `Arriving`, yields whenever it needs more than has arrived, and returns what it understood."""


class Refusal(Enum):
    """Why a program does not get its connection. Each face has a code of its own for each."""

    FOREIGN = auto()  # a name or address outside the overlay: not looked up, not dialled
    NO_SUCH_NAME = auto()  # within our domain, and no node id
    NOT_FOUND = auto()
    NO_NETWORK = auto()
    CIRCUIT_FAILED = auto()
    STREAM_REFUSED = auto()
    TIMED_OUT = auto()


class Face(Protocol):
    """One of the protocols that programs speak to a proxy."""

    name: str

    def granted(self) -> bytes:
        """What tells the program that its connection stands; all that follows is the connection's."""
        ...

    def refused(self, why: Refusal, text: str) -> bytes:
        """What tells it that there is none; `text` is for people, as far as the face has room for words."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password. They open nothing: they keep apart what is done under different ones."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return "Credentials(...)"


@dataclass(frozen=True, slots=True)
class Request:
    """A connection that a program wants. `host` is as the program wrote it, and may be anything."""

    face: Face
    host: str
    port: int
    credentials: Credentials | None = None


class RequestRefused(Exception):
    """A request that breaks its protocol, or asks for what this proxy does not do. `answer` says so to the program."""

    def __init__(self, why: str, answer: bytes = b"") -> None:
        super().__init__(why)
        self.answer = answer


class HeadTooLong(Exception):
    """A head without an end."""


class Arriving:
    """Bytes as they come in, for one parser; and what it wants answered."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.answer = bytearray()

    def peek(self) -> Parser[int]:
        """The first byte, which stays."""
        while not self.data:
            yield
        return self.data[0]

    def take(self, size: int) -> Parser[bytes]:
        """Exactly so many bytes."""
        while len(self.data) < size:
            yield
        taken = bytes(self.data[:size])
        del self.data[:size]
        return taken

    def take_through(self, end: re.Pattern[bytes], limit: int) -> Parser[bytes]:
        """All through the first match of `end`, of 4 bytes at most. HeadTooLong when `limit` bytes hold none."""
        searched = 0
        while (found := end.search(self.data, max(0, searched - 3), limit)) is None:
            searched = len(self.data)
            if searched >= limit:
                raise HeadTooLong
            yield
        return (yield from self.take(found.end()))
