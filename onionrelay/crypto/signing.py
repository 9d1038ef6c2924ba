"""The one function that signs and the one that verifies. specs/01-identity.md.

Every signature of the protocol is over `"onionrelay/" thing "/1" 00 | body`, and no two structures share a `thing`, so
a signature made for one can never be shown as another. libsodium (PyNaCl) is the only verifier: other Ed25519
implementations accept the identity point as a key, or scalars and points that libsodium refuses.
"""

from nacl import bindings
from nacl.exceptions import BadSignatureError

from onionrelay.base.errors import BadSignature, UsageError
from onionrelay.base.ids import Ed25519Point
from onionrelay.base.seams import Rng

SEED_SIZE = 32
SIGNATURE_SIZE = 64


class SigningSecret:
    """An Ed25519 secret key, made from its 32-byte seed. `public` is the 32-byte public key."""

    __slots__ = ("_expanded", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_SIZE:
            raise UsageError(f"the seed of a signing key is {SEED_SIZE} bytes, not {len(seed)}")
        self.seed = seed
        self.public: bytes
        self.public, self._expanded = bindings.crypto_sign_seed_keypair(seed)

    @classmethod
    def generate(cls, rng: Rng) -> "SigningSecret":
        """A new random key."""
        return cls(rng.token(SEED_SIZE))

    def sign(self, thing: str, body: bytes) -> bytes:
        """The 64-byte signature of `body` as a `thing`."""
        return bindings.crypto_sign(signed_message(thing, body), self._expanded)[:SIGNATURE_SIZE]

    def __repr__(self) -> str:
        return f"SigningSecret(public={self.public[:4].hex()}...)"


def verify(key: Ed25519Point, thing: str, body: bytes, signature: bytes) -> None:
    """Raises BadSignature unless `signature` is `key`'s signature of `body` as a `thing` (45 us)."""
    if len(signature) != SIGNATURE_SIZE:
        raise BadSignature(f"the {thing} signature is {len(signature)} bytes long, not {SIGNATURE_SIZE}")
    try:
        bindings.crypto_sign_open(signature + signed_message(thing, body), key.raw)
    except BadSignatureError:
        raise BadSignature(f"the {thing} signature does not verify") from None


def signed_message(thing: str, body: bytes) -> bytes:
    """The bytes a signature covers."""
    return b"onionrelay/" + thing.encode("ascii") + b"/1\0" + body
