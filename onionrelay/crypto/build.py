"""The one-round-trip circuit build: six sealed records out, six sealed replies back. specs/03-build.md.

Works on bytes of fixed size and knows no fields: a record's plaintext and a reply's body are `onionrelay.wire.build`'s.
The client makes a `CircuitSealer`, each hop calls `open_build` and answers once through the `OpenedBuild` it got.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from onionrelay.base.errors import BuildUnopenable, UsageError
from onionrelay.base.limits import (
    BUILD,
    BUILT,
    CONFIRMATION,
    LAYER_SEED,
    ONION_MLKEM_CIPHERTEXT,
    RECORD,
    RECORD_PLAINTEXT,
    REPLAY_TAG,
    REPLY_PLAINTEXT,
    REPLY_SLOT,
    SLOTS,
)
from onionrelay.base.seams import Rng
from onionrelay.crypto.onion_keys import OnionPublic, OnionSecret, shared_secret

REPLY_BODY = REPLY_PLAINTEXT - CONFIRMATION
_LABEL = b"onionrelay/build/1"
_SEALED = 32 + ONION_MLKEM_CIPHERTEXT  # where a record's sealed plaintext begins, after X and the ML-KEM ciphertext
_NONCE = bytes(12)  # every key below seals one message in its life
_STREAM_START = bytes(16)  # counter 0, nonce 0
_SHA256 = SHA256()


@dataclass(frozen=True, slots=True, repr=False)
class CircuitKeys:
    """What client and hop share after the handshake: a layer seed (112) for each direction, a channel binding (32)."""

    forward: bytes
    backward: bytes
    binding: bytes


@dataclass(frozen=True, slots=True)
class HopReply:
    """One hop's authenticated answer: `body` is 104 bytes, its first the status."""

    body: bytes
    keys: CircuitKeys = field(repr=False)


@dataclass(frozen=True, slots=True)
class BuildReply:
    """The answers in path order, up to the first that refuses. `garbled`: the one after them did not open."""

    hops: tuple[HopReply, ...]
    garbled: bool


class CircuitSealer:
    """The client's side of one build. Used for one `seal` and one `open_reply`, then thrown away."""

    def __init__(self, net_id: bytes, hops: Sequence[tuple[bytes, OnionPublic]], rng: Rng) -> None:
        """`hops`: each hop's identity (32) and onion keys, in path order, one to six."""
        if not 1 <= len(hops) <= SLOTS:
            raise UsageError(f"a build has 1 to {SLOTS} hops, not {len(hops)}")
        self._rng = rng
        self._hops = [_SealingHop(net_id, identity, onion, rng) for identity, onion in hops]
        self._sealed: list[bytes] = []

    def ephemeral(self, hop: int) -> bytes:
        """X of a hop, counted from 0: a ticket for the attachment behind it is made over this."""
        return self._hops[hop].ephemeral

    def seal(self, plaintexts: Sequence[bytes]) -> bytes:
        """The BUILD message (7728) that carries one record plaintext (152) to each hop."""
        if self._sealed:
            raise UsageError("a sealer seals once: its keys and nonces must not meet a second plaintext")
        if len(plaintexts) != len(self._hops) or any(len(text) != RECORD_PLAINTEXT for text in plaintexts):
            raise UsageError(f"one plaintext of {RECORD_PLAINTEXT} bytes for each of {len(self._hops)} hops")
        message = b""
        rest = self._last_rest()
        for hop, plaintext in zip(reversed(self._hops), reversed(plaintexts), strict=True):
            if message:
                rest = _xor(message, hop.mask)[:-RECORD]
            sealed = ChaCha20Poly1305(hop.record_key).encrypt(_NONCE, plaintext, rest)
            self._sealed.insert(0, sealed)
            message = hop.ephemeral + hop.ciphertext + sealed + rest
        return message

    def _last_rest(self) -> bytes:
        """What the last hop finds behind its record: random, then what the hops before it shift in.

        Random and not zero: zeros would tell the last hop how many slots are unused, hence the path's length.
        """
        shifted = b""
        for hop in self._hops[:-1]:
            shifted = _xor(shifted + bytes(RECORD), hop.mask[BUILD - len(shifted) - RECORD :])
        return self._rng.token(BUILD - RECORD - len(shifted)) + shifted

    def open_reply(self, reply: bytes) -> BuildReply:
        """Opens a BUILT message (1104) hop by hop; what came before the first failure is authentic."""
        if len(reply) != BUILT or not self._sealed:
            raise UsageError(f"a reply to a sealed build is {BUILT} bytes, not {len(reply)}")
        answers: list[HopReply] = []
        for hop, sealed in zip(self._hops, self._sealed, strict=True):
            opened = hop.open_slot(sealed, reply[:REPLY_SLOT])
            if opened is None:
                return BuildReply(tuple(answers), garbled=True)
            answer, stream_key = opened
            answers.append(answer)
            if answer.body[0]:
                break
            reply = _keystream_xor(stream_key, reply[REPLY_SLOT:]) + bytes(REPLY_SLOT)
        return BuildReply(tuple(answers), garbled=False)


class _SealingHop:
    """What the client knows of one hop between sealing its record and opening its reply."""

    __slots__ = ("_kem", "_secret", "_static", "_transcript", "ciphertext", "ephemeral", "mask", "record_key")

    def __init__(self, net_id: bytes, identity: bytes, onion: OnionPublic, rng: Rng) -> None:
        self._secret = X25519PrivateKey.from_private_bytes(rng.token(32))
        self.ephemeral = self._secret.public_key().public_bytes_raw()
        try:
            self._kem, self.ciphertext = onion.encapsulate()
            self._static = shared_secret(self._secret, onion.x25519)
        except ValueError:
            raise UsageError("onion keys that cannot be sealed to: they were never decoded") from None
        self._transcript = _transcript(net_id, identity, onion, self.ephemeral, self.ciphertext)
        self.record_key, mask_key = _record_keys(self._transcript, self._kem, self._static)
        self.mask = _keystream_xor(mask_key, bytes(BUILD))

    def open_slot(self, sealed: bytes, slot: bytes) -> tuple[HopReply, bytes] | None:
        """The answer in this hop's slot and the key that hides the slots behind it; None when it is not the hop's."""
        their_ephemeral = slot[:32]
        try:
            fresh = shared_secret(self._secret, their_ephemeral)
            keys = _Session(self._transcript, sealed, their_ephemeral, fresh + self._static + self._kem)
            plaintext = ChaCha20Poly1305(keys.reply).decrypt(_NONCE, slot[32:], _LABEL)
        except (ValueError, InvalidTag):
            return None
        if not hmac.compare_digest(plaintext[:CONFIRMATION], keys.confirmation):
            return None
        return HopReply(plaintext[CONFIRMATION:], keys.circuit), keys.reply_mask


class _Session:
    """The second stage of the key schedule: everything that depends on both sides' ephemeral keys."""

    __slots__ = ("circuit", "confirmation", "reply", "reply_mask")

    def __init__(self, transcript: bytes, sealed: bytes, ephemeral: bytes, secret: bytes) -> None:
        """`ephemeral` is the hop's Y, `secret` = X25519(y, X) | X25519(b, X) | the ML-KEM secret."""
        root = HKDF.extract(_SHA256, hashlib.sha256(transcript + sealed + ephemeral).digest(), secret)
        self.reply = _expand(root, b"rep", 32)
        self.reply_mask = _expand(root, b"blay", 32)
        self.confirmation = _expand(root, b"conf", CONFIRMATION)
        self.circuit = CircuitKeys(
            _expand(root, b"fwd", LAYER_SEED), _expand(root, b"bwd", LAYER_SEED), _expand(root, b"bind", 32)
        )


class OpenedBuild:
    """A build message as its hop sees it, and the one answer the hop may give.

    `plaintext` 152, `onward` 7728 (the message for the next hop), `ephemeral` X 32, `replay_tag` 16, `secret_index`
    which of the onion secrets opened it.
    """

    __slots__ = ("_own", "_rng", "_session", "ephemeral", "keys", "onward", "plaintext", "replay_tag", "secret_index")

    def __init__(
        self,
        *,
        plaintext: bytes,
        onward: bytes,
        record: bytes,
        secret_index: int,
        own_ephemeral: bytes,
        session: _Session,
        rng: Rng,
    ) -> None:
        self.plaintext = plaintext
        self.onward = onward
        self.ephemeral = record[:32]
        self.replay_tag = hashlib.sha256(record).digest()[:REPLAY_TAG]
        self.secret_index = secret_index
        self.keys = session.circuit
        self._own = own_ephemeral
        self._session: _Session | None = session
        self._rng = rng

    def reply(self, body: bytes, downstream: bytes | None) -> bytes:
        """The BUILT message (1104): `body` (status first, at most 104) sealed, before what the next hop answered.

        `downstream` is the next hop's BUILT, or None at the hop that answers first.
        """
        session = self._session
        if session is None:
            raise UsageError("a build is answered once: its reply key must not meet a second plaintext")
        if not 1 <= len(body) <= REPLY_BODY or (downstream is not None and len(downstream) != BUILT):
            raise UsageError(f"a reply body is 1 to {REPLY_BODY} bytes, and the downstream reply {BUILT}")
        self._session = None
        plaintext = (session.confirmation + body).ljust(REPLY_PLAINTEXT, b"\0")
        slot = self._own + ChaCha20Poly1305(session.reply).encrypt(_NONCE, plaintext, _LABEL)
        below = self._rng.token(BUILT) if downstream is None else downstream
        return slot + _keystream_xor(session.reply_mask, below[:-REPLY_SLOT])

    def __repr__(self) -> str:
        return f"OpenedBuild(replay_tag={self.replay_tag.hex()})"


def open_build(message: bytes, secrets: Sequence[OnionSecret], identity: bytes, net_id: bytes, rng: Rng) -> OpenedBuild:
    """Opens the first record of a BUILD message with the first of `secrets` that fits.

    Raises BuildUnopenable for everything that was not sealed, as a whole, to one of them under this identity. Replay
    is the caller's to check, by `replay_tag`, before it acts on the plaintext.
    """
    if len(message) != BUILD:
        raise BuildUnopenable(f"a build message is {BUILD} bytes, not {len(message)}")
    record, rest = message[:RECORD], message[RECORD:]
    ephemeral, ciphertext, sealed = record[:32], record[32:_SEALED], record[_SEALED:]
    for index, secret in enumerate(secrets):
        try:
            kem, static = secret.open(ephemeral, ciphertext)
            transcript = _transcript(net_id, identity, secret.public, ephemeral, ciphertext)
            record_key, mask_key = _record_keys(transcript, kem, static)
            plaintext = ChaCha20Poly1305(record_key).decrypt(_NONCE, sealed, rest)
        except (ValueError, InvalidTag):
            continue
        own = X25519PrivateKey.from_private_bytes(rng.token(32))
        own_ephemeral = own.public_key().public_bytes_raw()
        fresh = shared_secret(own, ephemeral)
        return OpenedBuild(
            plaintext=plaintext,
            onward=_keystream_xor(mask_key, rest + bytes(RECORD)),
            record=record,
            secret_index=index,
            own_ephemeral=own_ephemeral,
            session=_Session(transcript, sealed, own_ephemeral, fresh + static + kem),
            rng=rng,
        )
    raise BuildUnopenable("no onion key here opens this build message")


def _transcript(net_id: bytes, identity: bytes, onion: OnionPublic, ephemeral: bytes, ciphertext: bytes) -> bytes:
    parts = (_LABEL, b"\0", net_id, identity, onion.x25519, onion.digest, ephemeral, ciphertext)
    return hashlib.sha256(b"".join(parts)).digest()


def _record_keys(transcript: bytes, kem: bytes, static: bytes) -> tuple[bytes, bytes]:
    """The first stage of the key schedule: the key of the record, and the key of the mask over the other slots."""
    root = HKDF.extract(_SHA256, transcript, kem + static)
    return _expand(root, b"rec", 32), _expand(root, b"lay", 32)


def _expand(root: bytes, name: bytes, size: int) -> bytes:
    return HKDFExpand(_SHA256, size, _LABEL + b"/" + name).derive(root)


def _keystream_xor(key: bytes, data: bytes) -> bytes:
    return Cipher(ChaCha20(key, _STREAM_START), None).encryptor().update(data)


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
