"""What one process can know: its memory, its files, what its links carried. And the search of all that for facts."""

import ipaddress
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

PIECE = 16  # bytes that cannot be there by chance: random data of 10 GB holds a given piece with probability 2^-94
ZERO_PAGE = bytes(4096)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something to look for. Any of `pieces`, or the address `packed` where it is meant as one, gives it away."""

    name: str
    pieces: frozenset[bytes]
    packed: bytes = b""

    def __str__(self) -> str:
        return self.name

    @classmethod
    def of_bytes(cls, name: str, *forms: bytes) -> "Fact":
        """Bytes, in all the forms that they may be written in.

        Looked for by beginning and end: a cell boundary may run through them, and freed memory loses its first bytes.
        """
        return cls(name, frozenset(piece for form in forms for piece in (form[:PIECE], form[-PIECE:])))

    @classmethod
    def of_address(cls, name: str, host: str) -> "Fact":
        """An IPv4 address: as text, and as four bytes where these are meant as an address.

        Any four bytes stand somewhere in 40 MB of memory once in a hundred times, so that a bare search would raise
        false alarms. `_is_address` says what has to stand around them.
        """
        return cls(name, frozenset({host.encode()}), ipaddress.IPv4Address(host).packed)

    def is_in(self, data: bytes) -> bool:
        """Whether `data` gives it away."""
        return any(piece in data for piece in self.pieces) or (bool(self.packed) and self._has_address(data))

    def _has_address(self, data: bytes) -> bool:
        at = data.find(self.packed)
        while at >= 0:
            if _is_address(data, at):
                return True
            at = data.find(self.packed, at + 1)
        return False


def _is_address(data: bytes, at: int) -> bool:
    """Whether the four bytes at `at` are an address, by what stands around them (`.` is any byte):

    ::

        00 00 ff ff A           on the wire, IPv4-mapped: HELLO_S tells a client its address
        A . . 00 * 18           on the wire, an endpoint without IPv6: build records, descriptors
        02 00 . . A             the kernel's sockaddr_in
        04|06|12 00 * 7 . * 8 A     a bytes object of 4, 6 (with a port) or 18 bytes: its length, its hash, its content
    """
    before, behind = data[max(0, at - 16) : at], data[at + 4 : at + 24]
    is_bytes_object = len(before) == 16 and before[:8] in {n.to_bytes(8, sys.byteorder) for n in (4, 6, 18)}
    return (
        before.endswith(b"\0\0\xff\xff")
        or behind[2:] == bytes(18)
        or before[-4:-2] == (2).to_bytes(2, sys.byteorder)
        or is_bytes_object
    )


Sighting: TypeAlias = dict[str, frozenset[str]]
"""The places where each fact was found, by the fact's name; without the facts that were found nowhere."""


class View:
    """A copy of what one process can know: its memory, and files by the name of the place they make up."""

    def __init__(self, pid: int, **files: Iterable[Path]) -> None:
        """Folders stand for all that is below them. Linux only, as root or as the owner of the process."""
        self._parts = [(place, data) for place, paths in files.items() for data in _contents(paths)]
        self._parts += [("memory", data) for data in memory(pid)]

    @property
    def size(self) -> int:
        """How many bytes there are to search."""
        return sum(len(data) for _, data in self._parts)

    def search(self, facts: Iterable[Fact]) -> Sighting:
        """Looks for every fact in every place. Facts of one name count as one."""
        found: Sighting = {}
        for fact in facts:
            if places := frozenset(place for place, data in self._parts if fact.is_in(data)):
                found[fact.name] = found.get(fact.name, frozenset()) | places
        return found


def _contents(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        yield from (file.read_bytes() for file in (path, *path.rglob("*")) if file.is_file())


def memory(pid: int) -> Iterator[bytes]:
    """Every mapping that a process can read and write: heap, stacks, arenas, what was freed. Without zero pages."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in maps:
            place, permissions, *_ = line.split()
            start, end = (int(edge, 16) for edge in place.split("-"))
            if permissions.startswith("rw"):
                mem.seek(start)
                with suppress(OSError):  # the process goes on meanwhile, and has given this mapping back
                    yield from mem.read(end - start).split(ZERO_PAGE)
