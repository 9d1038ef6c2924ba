"""The encryption of a reach record's contents to everybody who knows the node id. specs/05-attach-and-reach.md."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from onionrelay.base.errors import MalformedMessage
from onionrelay.base.ids import BlindedKey, NodeId

_NONCE = bytes(12)  # the key is the salt's, and every revision draws a new salt
_INFO = b"onionrelay/reach/1"


def seal_reach(
    plaintext: bytes, node_id: NodeId, blinded: BlindedKey, period: int, *, salt: bytes, aad: bytes
) -> bytes:
    """The ciphertext with its tag.

    `salt` (16) is fresh and random for every revision; `aad` is all of the record before the salt.
    """
    return ChaCha20Poly1305(_key(node_id, blinded, period, salt)).encrypt(_NONCE, plaintext, aad)


def open_reach(
    ciphertext: bytes, node_id: NodeId, blinded: BlindedKey, period: int, *, salt: bytes, aad: bytes
) -> bytes:
    """The plaintext; MalformedMessage when it was not sealed with exactly these values."""
    try:
        return ChaCha20Poly1305(_key(node_id, blinded, period, salt)).decrypt(_NONCE, ciphertext, aad)
    except InvalidTag:
        raise MalformedMessage("the contents of a reach record that do not open") from None


def _key(node_id: NodeId, blinded: BlindedKey, period: int, salt: bytes) -> bytes:
    secret = node_id.raw + blinded.raw + period.to_bytes(8, "big")
    return HKDF(SHA256(), 32, salt, _INFO).derive(secret)
