"""The relay-cell layer: one direction of one hop, in place on the buffer a cell arrived in. specs/04-cells.md.

The rugged pseudorandom permutation UIV+ of Counter Galois Onion (Degabriele, Melloni, Muench, Stam, ePrint 2025/583),
with AES-GCM serving as its hash (the tag over associated data at a constant nonce) and as its stream (the keystream at
a 16-byte nonce). Relays and targets always apply ENC, clients always DEC.

This is the one part of onionrelay written for speed before all else: no object per cell, three calls into C.
Every method works on a whole cell that begins at `start` and is `size` bytes long with its 8-byte header, whose fifth
byte, the command, is authenticated. The body is replaced; the header and the bytes behind the cell come back as they
were, but the 16 bytes behind it have to exist, because the cipher writes its tag there.
"""

from hmac import compare_digest

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from onionrelay.base.errors import UsageError
from onionrelay.base.limits import LAYER_SEED

_HASH_NONCE = bytes(12)
_ZEROS = bytes(LAYER_SEED)
_ECB = ECB()  # noqa: S305 - one block at a time, masked on both sides: the block cipher itself is what is wanted


class Layer:
    """What both directions share: the secret N, the chain value T, and the key update."""

    __slots__ = ("_block", "_chain", "_hash", "_mark", "_stream")

    def __init__(self, seed: bytes) -> None:
        """`seed` is 112 bytes: K 32 | U 32 | S 32 | N 16. T starts as zeros."""
        if len(seed) != LAYER_SEED:
            raise UsageError(f"a layer's seed is {LAYER_SEED} bytes, not {len(seed)}")
        self._chain = bytes(16)
        self._load(seed)

    def _load(self, seed: bytes) -> None:
        block = Cipher(AES(seed[:32]), _ECB)
        self._block = self._direction(block).update
        self._hash = AESGCM(seed[32:64]).encrypt
        self._stream = AESGCM(seed[64:96]).encrypt_into
        self._mark = seed[96:]

    @staticmethod
    def _direction(block: Cipher[ECB]) -> CipherContext:
        """The one direction of AES that this side uses; making a context is most of what an update costs."""
        raise NotImplementedError

    def is_mine(self, buf: bytearray, start: int) -> bool:
        """Whether the cell just transformed carries N: it ends here, and `update` comes next."""
        return compare_digest(buf[start + 8 : start + 24], self._mark)

    def mark(self, buf: bytearray, start: int) -> None:
        """Writes N where the end layer looks for it. Before the first transformation of a cell originated here."""
        buf[start + 8 : start + 24] = self._mark

    def update(self) -> None:
        """New K, U, S and N. After every cell that ends or begins at this layer: N must never serve twice."""
        fresh = bytearray(LAYER_SEED + 16)
        self._stream(self._chain + b"u", _ZEROS, None, fresh)
        self._load(bytes(fresh[:LAYER_SEED]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class LayerForEnc(Layer):
    """The side that applies ENC: a relay or a target, in both directions."""

    __slots__ = ()

    @staticmethod
    def _direction(block: Cipher[ECB]) -> CipherContext:
        return block.encryptor()

    def enc(self, buf: bytearray, start: int, size: int) -> None:
        """Applies ENC to the cell: forward it takes a layer off, backward it puts one on."""
        body, right, end, spare = start + 8, start + 24, start + size, start + size + 16
        view = memoryview(buf)
        left = int.from_bytes(view[body:right])
        last = buf[start + 7]
        # T and the command go right before X_R, so that the hash reads one run of bytes.
        view[start + 7 : start + 23] = self._chain
        buf[start + 23] = buf[start + 4]
        mask = int.from_bytes(self._hash(_HASH_NONCE, b"", view[start + 7 : end]))
        tag = (int.from_bytes(self._block((left ^ mask).to_bytes(16))) ^ mask).to_bytes(16)
        behind = buf[end:spare]
        self._stream(tag, view[right:end], None, view[right:spare])
        view[end:spare] = behind
        buf[start + 7] = last
        view[body:right] = tag
        self._chain = tag


class LayerForDec(Layer):
    """The side that applies DEC: a client, in both directions."""

    __slots__ = ()

    @staticmethod
    def _direction(block: Cipher[ECB]) -> CipherContext:
        return block.decryptor()

    def dec(self, buf: bytearray, start: int, size: int) -> None:
        """Applies DEC to the cell: forward it puts a layer on, backward it takes one off."""
        body, right, end, spare = start + 8, start + 24, start + size, start + size + 16
        view = memoryview(buf)
        tag = bytes(view[body:right])
        last = buf[start + 7]
        behind = buf[end:spare]
        self._stream(tag, view[right:end], None, view[right:spare])
        view[end:spare] = behind
        view[start + 7 : start + 23] = self._chain
        buf[start + 23] = buf[start + 4]
        mask = int.from_bytes(self._hash(_HASH_NONCE, b"", view[start + 7 : end]))
        left = int.from_bytes(self._block((int.from_bytes(tag) ^ mask).to_bytes(16))) ^ mask
        buf[start + 7] = last
        view[body:right] = left.to_bytes(16)
        self._chain = tag
