"""Onion keys: the X25519 and ML-KEM-768 pair to which build records are sealed. specs/03-build.md.

A secret pair lives in memory only. ML-KEM's own draws (encapsulation) are the one randomness that does not come from a
`Rng`: `cryptography` does not let a caller supply them.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from onionrelay.base.errors import MalformedMessage, MissingPrimitive, UsageError
from onionrelay.base.limits import ONION_MLKEM_KEY
from onionrelay.base.seams import Rng

_MISSING = (
    "onionrelay needs ML-KEM-768 and the installed `cryptography` does not offer it: "
    "install a wheel of cryptography 50 or later, or build it against OpenSSL 3.5 or later"
)
try:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

    MLKEM768PrivateKey.from_seed_bytes(bytes(64))
except (ImportError, UnsupportedAlgorithm):
    raise MissingPrimitive(_MISSING) from None

_X25519_SIZE = 32
_MLKEM_SEED_SIZE = 64
_PROBE = X25519PrivateKey.from_private_bytes(bytes(32))  # any scalar: after clamping it is a multiple of the cofactor


@dataclass(frozen=True)
class OnionPublic:
    """A hop's public onion keys. The constructor trusts its arguments; `decode` is for bytes from outside."""

    x25519: bytes
    mlkem: bytes

    @classmethod
    def decode(cls, x25519: bytes | memoryview, mlkem: bytes | memoryview) -> Self:
        """Checks both keys: lengths, no X25519 point of low order, every ML-KEM coefficient reduced.

        Raises MalformedMessage.
        """
        keys = cls(bytes(x25519), bytes(mlkem))
        if len(keys.x25519) != _X25519_SIZE or len(keys.mlkem) != ONION_MLKEM_KEY:
            raise MalformedMessage("an onion key of the wrong length")
        try:
            shared_secret(_PROBE, keys.x25519)
        except ValueError:
            raise MalformedMessage("an X25519 onion key of low order") from None
        try:
            MLKEM768PublicKey.from_public_bytes(keys.mlkem)
        except ValueError:
            raise MalformedMessage("an ML-KEM-768 onion key with a coefficient outside the field") from None
        return keys

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the ML-KEM key, which stands for it in the handshake's transcript."""
        return hashlib.sha256(self.mlkem).digest()

    def encapsulate(self) -> tuple[bytes, bytes]:
        """A fresh ML-KEM shared secret (32) and its ciphertext (1088), drawn by the library."""
        return MLKEM768PublicKey.from_public_bytes(self.mlkem).encapsulate()

    def __repr__(self) -> str:
        return f"OnionPublic({self.x25519[:4].hex()}...)"


class OnionSecret:
    """A hop's secret onion keys, made from a 32-byte X25519 scalar and a 64-byte ML-KEM seed."""

    __slots__ = ("_mlkem", "_x25519", "public")

    def __init__(self, x25519: bytes, mlkem_seed: bytes) -> None:
        if len(x25519) != _X25519_SIZE or len(mlkem_seed) != _MLKEM_SEED_SIZE:
            raise UsageError("an onion secret is made from 32 and 64 bytes")
        self._x25519 = X25519PrivateKey.from_private_bytes(x25519)
        self._mlkem = MLKEM768PrivateKey.from_seed_bytes(mlkem_seed)
        self.public = OnionPublic(
            self._x25519.public_key().public_bytes_raw(), self._mlkem.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls, rng: Rng) -> Self:
        """A new random pair."""
        return cls(rng.token(_X25519_SIZE), rng.token(_MLKEM_SEED_SIZE))

    def open(self, ephemeral: bytes, ciphertext: bytes) -> tuple[bytes, bytes]:
        """The ML-KEM and X25519 shared secrets of one build record; ValueError for a point of low order.

        A ciphertext made for another key gives a secret nobody else has, not an error: the record's tag tells.
        """
        return self._mlkem.decapsulate(ciphertext), shared_secret(self._x25519, ephemeral)

    def __repr__(self) -> str:
        return f"OnionSecret({self.public!r})"


def shared_secret(secret: X25519PrivateKey, public: bytes) -> bytes:
    """X25519; ValueError when the result is all zero, which only a point of low order gives."""
    return secret.exchange(X25519PublicKey.from_public_bytes(public))
