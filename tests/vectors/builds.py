"""Vectors of specs/03-build.md: whole builds and their replies, with everything in between."""

import hashlib
import json
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from onionrelay.base.limits import BUILD, BUILT, RECORD, REPLY_SLOT
from onionrelay.crypto.build import CircuitSealer, open_build
from onionrelay.crypto.onion_keys import OnionPublic, OnionSecret
from tests.seeded import SeededRng
from tests.vectors import model
from tests.vectors.paths import VECTORS

CHAPTER = "specs/03-build.md"
NET = bytes.fromhex("0123456789abcdef")


@dataclass(frozen=True)
class StoredOnionPublic(OnionPublic):
    """Onion keys whose encapsulation is the one stored in build-kem.json: the library cannot draw it from a seed."""

    stored: tuple[bytes, bytes] = (b"", b"")

    def encapsulate(self):
        return self.stored


class ScriptedRng:
    """Hands out the given values in order and insists on their sizes."""

    def __init__(self, *values):
        self._values = list(values)

    def token(self, size):
        value = self._values.pop(0)
        assert len(value) == size
        return value


def kem_vectors():
    """Keeps the encapsulations of the file that is there; draws new ones only when there is none."""
    path = VECTORS / "build-kem.json"
    known = {case["name"]: case for case in json.loads(path.read_text())["accept"]} if path.exists() else {}
    accept = []
    for number in range(6):
        name = f"hop {number}"
        seed = SeededRng(f"mlkem {number}").token(64)
        secret = OnionSecret(bytes(32), seed)
        ciphertext = bytes.fromhex(known[name]["ciphertext"]) if name in known else secret.public.encapsulate()[1]
        accept.append(kem_case(name, secret, seed, ciphertext))
    first = bytes.fromhex(accept[0]["ciphertext"])
    flipped = bytes([first[0] ^ 1]) + first[1:]
    seed = SeededRng("mlkem 0").token(64)
    accept.append(kem_case("implicit rejection: a changed ciphertext", OnionSecret(bytes(32), seed), seed, flipped))
    return {
        "chapter": CHAPTER,
        "about": "ML-KEM-768 (FIPS 203): what a seed d | z opens a ciphertext to; keys that are refused",
        "accept": accept,
        "reject": bad_onion_keys(bytes.fromhex(accept[0]["key"])),
    }


def kem_case(name, secret, seed, ciphertext):
    return {
        "name": name,
        "seed": seed.hex(),
        "key": secret.public.mlkem.hex(),
        "ciphertext": ciphertext.hex(),
        "secret": secret.open(BASE_POINT, ciphertext)[0].hex(),
    }


BASE_POINT = (9).to_bytes(32, "little")


def bad_onion_keys(key):
    cases = [
        ("a coefficient of 4095, first", BASE_POINT, b"\xff\xff" + key[2:]),
        ("a coefficient of 4095, last", BASE_POINT, key[:1150] + b"\xff\xff" + key[1152:]),
        ("1183 bytes", BASE_POINT, key[:-1]),
        ("1185 bytes", BASE_POINT, key + b"\0"),
        ("X25519: zero", bytes(32), key),
        ("X25519: one", b"\1" + bytes(31), key),
        ("X25519: order 8", bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), key),
        ("X25519: p - 1", (2**255 - 20).to_bytes(32, "little"), key),
        ("X25519: zero, with the unused bit set", bytes(31) + b"\x80", key),
        ("X25519: 31 bytes", BASE_POINT[:31], key),
    ]
    return [
        {"name": name, "x25519": x25519.hex(), "mlkem": mlkem.hex(), "error": "MalformedMessage"}
        for name, x25519, mlkem in cases
    ]


class Case:
    """One build with every draw taken from a seed, as client and hops see it."""

    def __init__(self, hops, kem):
        self.rng = SeededRng(f"build {hops}")
        self.count = hops
        draw = self.rng.token
        self.identities = [draw(32) for _ in range(hops)]
        self.x25519 = [draw(32) for _ in range(hops)]
        self.seeds = [bytes.fromhex(kem[hop]["seed"]) for hop in range(hops)]
        self.stored = [
            (bytes.fromhex(kem[hop]["secret"]), bytes.fromhex(kem[hop]["ciphertext"])) for hop in range(hops)
        ]
        self.secrets = [OnionSecret(*pair) for pair in zip(self.x25519, self.seeds, strict=True)]
        self.ephemerals = [draw(32) for _ in range(hops)]
        self.plaintexts = [draw(152) for _ in range(hops)]
        self.pad = draw((6 - hops) * RECORD)
        self.replies = [draw(32) for _ in range(hops)]
        self.reply_pad = draw(BUILT)
        self.sealer = self.new_sealer()
        self.message = self.sealer.seal(self.plaintexts)

    def new_sealer(self):
        publics = [
            StoredOnionPublic(secret.public.x25519, secret.public.mlkem, stored)
            for secret, stored in zip(self.secrets, self.stored, strict=True)
        ]
        rng = ScriptedRng(*self.ephemerals, self.pad)
        return CircuitSealer(NET, list(zip(self.identities, publics, strict=True)), rng)

    def open(self, hop, message):
        rng = ScriptedRng(self.replies[hop], self.reply_pad)
        return open_build(message, [self.secrets[hop]], self.identities[hop], NET, rng)

    def reply(self, bodies):
        """What the client receives when as many hops as there are bodies answer."""
        opened, message = [], self.message
        for hop in range(len(bodies)):
            opened.append(self.open(hop, message))
            message = opened[-1].onward
        reply = None
        for hop, body in zip(reversed(opened), reversed(bodies), strict=True):
            reply = hop.reply(body, reply)
        return reply


def public_of(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def exchange(secret, public):
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def body_of(hop):
    return b"\0\0" + bytes([hop]) * 3


def build_vectors():
    kem = kem_vectors()["accept"]
    return {
        "chapter": CHAPTER,
        "about": "builds of one to six hops; `kem` counts the cases of build-kem.json, `hop` from 0",
        "accept": [build_case(Case(hops, kem)) for hops in range(1, 7)],
        "reject": bad_builds(),
    }


def build_case(case):
    hops, message = [], case.message
    for hop in range(case.count):
        described, message = describe_hop(case, hop, message)
        hops.append(described)
    return {
        "name": f"{case.count} hops",
        "net_id": NET.hex(),
        "pad": case.pad.hex(),
        "hops": hops,
        "message": case.message.hex(),
        "reply_pad": case.reply_pad.hex(),
        "reply": case.reply([body_of(hop) for hop in range(case.count)]).hex(),
    }


def describe_hop(case, hop, message):
    opened = case.open(hop, message)
    ephemeral, reply_ephemeral = public_of(case.ephemerals[hop]), public_of(case.replies[hop])
    kem, ciphertext = case.stored[hop]
    public, sealed = case.secrets[hop].public, message[1120:RECORD]
    static = exchange(case.ephemerals[hop], public.x25519)
    onion_keys = (public.x25519, public.mlkem)
    transcript, record_key, mask_key = model.first_stage(
        NET, case.identities[hop], onion_keys, ephemeral + ciphertext, kem + static
    )
    fresh = exchange(case.replies[hop], ephemeral)
    keys = model.second_stage(transcript, sealed, reply_ephemeral, fresh + static + kem)
    assert (opened.keys.forward, opened.keys.backward, opened.keys.binding) == (keys["fwd"], keys["bwd"], keys["bind"])
    assert message[:1120] == ephemeral + ciphertext
    described = {
        "kem": hop,
        "identity": case.identities[hop],
        "x25519_secret": case.x25519[hop],
        "x25519": public.x25519,
        "ephemeral_secret": case.ephemerals[hop],
        "ephemeral": ephemeral,
        "plaintext": case.plaintexts[hop],
        "th0": transcript,
        "k_rec": record_key,
        "k_lay": mask_key,
        "sealed": sealed,
        "message_sha256": hashlib.sha256(message).digest(),
        "replay_tag": opened.replay_tag,
        "reply_ephemeral_secret": case.replies[hop],
        "reply_ephemeral": reply_ephemeral,
        "body": body_of(hop),
        **keys,
    }
    return {
        name: value.hex() if isinstance(value, bytes) else value for name, value in described.items()
    }, opened.onward


def bad_builds():
    """`put` bytes at `at` of the message that hop `hop` of the accepted case `of` receives, or cut it to `cut` bytes."""
    cases = [
        *[(f"byte {at} at hop {hop}", hop, {"at": at, "flip": 1 << at % 8}) for hop in (0, 1, 2) for at in PLACES],
        ("X of zero", 0, {"at": 0, "put": bytes(32).hex()}),
        ("X of one", 0, {"at": 0, "put": (b"\1" + bytes(31)).hex()}),
        ("a ciphertext of zeros", 0, {"at": 32, "put": bytes(1088).hex()}),
        ("a blanked slot", 1, {"at": 3 * RECORD, "put": bytes(RECORD).hex()}),
        ("cut short by a byte", 0, {"cut": BUILD - 1}),
        ("cut to the record", 0, {"cut": RECORD}),
        ("nothing", 0, {"cut": 0}),
        ("another network", 0, {"net_id": bytes(8).hex()}),
        ("another identity", 0, {"identity": bytes(32).hex()}),
    ]
    return [
        {"name": name, "of": "3 hops", "hop": hop, **change, "error": "BuildUnopenable"} for name, hop, change in cases
    ]


PLACES = (0, 31, 32, 1119, 1120, 1271, 1272, 1287, 1288, 5000, 7727)


def reply_vectors():
    kem = kem_vectors()["accept"]
    case = Case(5, kem)
    accept = []
    for refusing in range(5):
        bodies = [*[body_of(hop) for hop in range(refusing)], bytes([refusing + 4, 9]) + b"why"]
        accept.append(
            {
                "name": f"hop {refusing} of 5 answers status {refusing + 4}",
                "of": "5 hops",
                "bodies": [body.hex() for body in bodies],
                "reply": case.reply(bodies).hex(),
            }
        )
    places = {"Y": 5, "the sealed part": 60, "the tag": REPLY_SLOT - 1}
    reject = [
        {
            "name": f"{name} of slot {slot}",
            "of": "5 hops",
            "at": slot * REPLY_SLOT + place,
            "flip": 1,
            "opened": slot,
            "error": "garbled",
        }
        for slot in range(5)
        for name, place in places.items()
    ]
    zero = {
        "name": "Y of zero in slot 0",
        "of": "5 hops",
        "at": 0,
        "put": bytes(32).hex(),
        "opened": 0,
        "error": "garbled",
    }
    return {
        "chapter": CHAPTER,
        "about": "replies to the builds of build.json: refusals, and which hops are heard when a slot was changed",
        "accept": accept,
        "reject": [*reject, zero],
    }
