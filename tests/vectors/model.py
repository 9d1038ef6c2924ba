"""The handshake and the layer a second time, straight from specs/03-build.md and specs/04-cells.md.

Slow, plain and independent of onionrelay.crypto: it supplies the intermediate values of the vectors, which the package
keeps to itself, and the generator stops when the two disagree.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def extract(salt, secret):
    return hmac.digest(salt, secret, "sha256")


def expand(root, name, size):
    block, out = b"", b""
    while len(out) < size:
        block = hmac.digest(root, block + b"onionrelay/build/1/" + name + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:size]


def first_stage(net_id, identity, onion_keys, record, secrets):
    """th0, k_rec, k_lay. `record` = X | ct, `secrets` = ss | dh1."""
    x25519, mlkem = onion_keys
    transcript = sha256(b"onionrelay/build/1\0", net_id, identity, x25519, sha256(mlkem), record)
    root = extract(transcript, secrets)
    return transcript, expand(root, b"rec", 32), expand(root, b"lay", 32)


def second_stage(transcript, sealed, reply_ephemeral, secrets):
    """`secrets` = dh2 | dh1 | ss."""
    root = extract(sha256(transcript, sealed, reply_ephemeral), secrets)
    sizes = {"rep": 32, "blay": 32, "conf": 32, "fwd": 112, "bwd": 112, "bind": 32}
    return {name: expand(root, name.encode(), size) for name, size in sizes.items()}


def xor(left, right):
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


class Layer:
    def __init__(self, seed):
        self.seed, self.chain = seed, bytes(16)

    def _part(self, start, end):
        return self.seed[start:end]

    @property
    def mark(self):
        return self._part(96, 112)

    def hash(self, cmd, right):
        return AESGCM(self._part(32, 64)).encrypt(bytes(12), b"", self.chain + bytes([cmd]) + right)

    def stream(self, nonce, data):
        return AESGCM(self._part(64, 96)).encrypt(nonce, data, None)[:-16]

    def _block(self):
        return Cipher(algorithms.AES(self._part(0, 32)), modes.ECB())  # noqa: S305 - the bare block cipher is what is wanted

    def enc(self, cmd, body):
        left, right = body[:16], body[16:]
        mask = self.hash(cmd, right)
        self.chain = xor(self._block().encryptor().update(xor(left, mask)), mask)
        return self.chain + self.stream(self.chain, right)

    def dec(self, cmd, body):
        tag, right = body[:16], self.stream(body[:16], body[16:])
        mask = self.hash(cmd, right)
        self.chain = tag
        return xor(self._block().decryptor().update(xor(tag, mask)), mask) + right

    def update(self):
        self.seed = self.stream(self.chain + b"u", bytes(112))
