"""Bech32m (BIP-350): text with a prefix and a checksum that catches any four wrong characters. specs/01-identity.md.

Written here because the packages that offer it are tied to Bitcoin addresses or unmaintained; the whole format is one
checksum and a change of base.
"""

from collections.abc import Iterable, Sequence

from onionrelay.base.errors import InvalidId

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_SYMBOL = {char: value for value, char in enumerate(ALPHABET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CONSTANT = 0x2BC830A3
_CHECKSUM = 6
_MAX_TEXT = 90  # beyond it the checksum no longer catches every four errors


def encode(hrp: str, symbols: Sequence[int]) -> str:
    """Text of 5-bit `symbols` under the lower-case prefix `hrp`."""
    polymod = _polymod([*_expand(hrp), *symbols, *bytes(_CHECKSUM)]) ^ _CONSTANT
    checksum = [(polymod >> 5 * (_CHECKSUM - 1 - i)) & 31 for i in range(_CHECKSUM)]
    return hrp + "1" + "".join(ALPHABET[symbol] for symbol in [*symbols, *checksum])


def decode(text: str) -> tuple[str, list[int]]:
    """The prefix (lower case) and the 5-bit symbols without the checksum; InvalidId says what is wrong."""
    if len(text) > _MAX_TEXT:
        raise InvalidId(f"an id is shorter than {len(text)} characters")
    if text.lower() != text and text.upper() != text:
        raise InvalidId("an id is written in one case: this one mixes upper and lower case")
    hrp, separator, data = text.lower().rpartition("1")
    if not separator or not hrp:
        raise InvalidId("no id: the prefix and its 1 are missing")
    if not all("!" <= char <= "~" for char in hrp):
        raise InvalidId("an id's prefix holds printable ASCII only")
    wrong = next((char for char in data if char not in _SYMBOL), None)
    if wrong is not None:
        raise InvalidId(f"{wrong!r} does not occur in an id")
    symbols = [_SYMBOL[char] for char in data]
    if len(symbols) < _CHECKSUM or _polymod([*_expand(hrp), *symbols]) != _CONSTANT:
        raise InvalidId("the checksum does not match: a character is wrong or missing")
    return hrp, symbols[:-_CHECKSUM]


def to_symbols(data: bytes) -> list[int]:
    """8-bit bytes to 5-bit symbols, most significant bit first, the last one filled with zero bits."""
    bits = len(data) * 8
    padding = -bits % 5
    value = int.from_bytes(data, "big") << padding
    return [(value >> shift) & 31 for shift in range(bits + padding - 5, -1, -5)]


def from_symbols(symbols: Sequence[int]) -> bytes:
    """The inverse of `to_symbols`; InvalidId when the filling is not what `to_symbols` writes."""
    size, padding = divmod(len(symbols) * 5, 8)
    value = 0
    for symbol in symbols:
        value = value << 5 | symbol
    if padding >= 5 or value & ((1 << padding) - 1):
        raise InvalidId("the bits that fill the last character of an id are zero: these are not")
    return (value >> padding).to_bytes(size, "big")


def _expand(hrp: str) -> list[int]:
    return [ord(char) >> 5 for char in hrp] + [0] + [ord(char) & 31 for char in hrp]


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                checksum ^= generator
    return checksum
