"""Key files: one line of text that says what it is, and that shows when a part of it is missing.

::

    onionrelay-node-key 1 <seed, 64 hex digits> <check>                         node.key
    onionrelay-relay-key 1 <seed, 64 hex digits> <check>                        relay.key
    onionrelay-signing-key 1 <seed, 64> <certificate, 200 hex digits> <check>   signing.key

`check` is the first 8 hex digits of SHA-256 over the line before it, without the space: it finds a truncated or
mistyped file, not a forged one.
"""

import hashlib

from onionrelay.base.errors import ConfigError

VERSION = "1"


def key_line(kind: str, *parts: bytes) -> bytes:
    """The file of a key of this kind."""
    line = " ".join([kind, VERSION, *(part.hex() for part in parts)])
    return f"{line} {check(line)}\n".encode()


def read_key_line(data: bytes, kind: str, sizes: tuple[int, ...], where: str) -> list[bytes]:
    """The parts of a key file, of `sizes` bytes. Raises ConfigError, which never quotes the file."""
    words = data.decode("ascii", errors="replace").removesuffix("\n").split(" ")
    if words[0] != kind:
        raise ConfigError(f"{where} holds no {kind}: put the right file there, or move it away and make a new key")
    if words[1:2] != [VERSION]:
        raise ConfigError(f"{where} is of a version that this program does not know: use a newer onionrelay")
    if words[-1] != check(" ".join(words[:-1])):
        raise ConfigError(f"{where} is damaged, as its check digits show: restore it from a copy")
    try:
        parts = [bytes.fromhex(word) for word in words[2:-1]]
    except ValueError:
        parts = []
    if tuple(map(len, parts)) != sizes:
        raise ConfigError(f"{where} does not hold what belongs into a file of {kind}: restore it from a copy")
    return parts


def check(line: str) -> str:
    """8 hex digits over the line they follow."""
    return hashlib.sha256(line.encode()).hexdigest()[:8]
