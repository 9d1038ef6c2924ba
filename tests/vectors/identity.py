"""Vectors of specs/01-identity.md: text forms, keys, signatures, blinding."""

import hashlib

from nacl import bindings

from onionrelay.base import bech32m
from onionrelay.base.ids import NodeId, RelayId
from onionrelay.crypto.blind import blind_public, blind_sign, period_at
from onionrelay.crypto.signing import SigningSecret, signed_message
from tests.seeded import SeededRng

CHAPTER = "specs/01-identity.md"
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")

BIP_350_VALID = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
]
BIP_350_INVALID = {
    "a space in the prefix": " 1xj0phk",
    "a control character in the prefix": "\x7f1g6xzxy",
    "a character beyond ASCII in the prefix": "\x801vctc34",
    "longer than 90": "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4",
    "no separator": "qyrz8wqd2c9m",
    "empty prefix": "1qyrz8wqd2c9m",
    "b in the data": "y1b0jsk6g",
    "i in the data": "lt1igcx5c0",
    "checksum cut short": "in1muywd",
    "i in the checksum": "mm1crxm3i",
    "o in the checksum": "au1s5cgom",
    "checksum made with an upper-case prefix": "M1VUXWEZ",
    "empty prefix and no data": "16plkw9",
    "empty prefix, 1 in the data": "1p2gdwpf",
    "mixed case": "A1lqfn3a",
    "the checksum of bech32, not bech32m": "A12UEL5L",
}


def little(number):
    return number.to_bytes(32, "little")


def secret(name):
    return SigningSecret(SeededRng(name).token(32))


def bech32m_vectors():
    accept = []
    for text in BIP_350_VALID:
        hrp, symbols = bech32m.decode(text)
        accept.append({"name": f"BIP-350 {text[:12]}", "text": text, "hrp": hrp, "symbols": bytes(symbols).hex()})
    reject = [{"name": name, "text": text, "error": "InvalidId"} for name, text in BIP_350_INVALID.items()]
    return {"chapter": CHAPTER, "about": "bech32m strings and their 5-bit symbols", "accept": accept, "reject": reject}


def ids_vectors():
    accept = []
    for number in range(3):
        key = secret(f"id {number}")
        accept.append(
            {
                "name": f"key {number}",
                "seed": key.seed.hex(),
                "raw": key.public.hex(),
                "node_id": str(NodeId(key.public)),
                "relay_id": str(RelayId(key.public)),
            }
        )
    return {
        "chapter": CHAPTER,
        "about": "Ed25519 public keys as ids; `raw` cases are refused as any kind of key, `text` cases as the kind said",
        "accept": accept,
        "reject": [*bad_points(), *bad_texts()],
    }


def bad_points():
    key = secret("id 0").public
    points = {
        "the identity": little(1),
        "order 2": little(P - 1),
        "order 4": little(0),
        "order 8": ORDER_8,
        "not canonical: y = p + 3": little(P + 3),
        "not canonical: the identity as p + 1": little(P + 1),
        "the identity with a sign bit": little(1 | 1 << 255),
        "mixed order: a good key plus a point of order 8": bindings.crypto_core_ed25519_add(key, ORDER_8),
        "mixed order: a good key plus the point of order 2": bindings.crypto_core_ed25519_add(key, little(P - 1)),
        "not on the curve": little(2),
        "31 bytes": key[:31],
        "33 bytes": key + b"\0",
    }
    return [{"name": name, "raw": raw.hex(), "error": "InvalidId"} for name, raw in points.items()]


def bad_texts():
    key = secret("id 0").public
    good, symbols = str(NodeId(key)), bech32m.to_symbols(key)
    filled = [*symbols[:-1], symbols[-1] | 1]
    texts = [
        ("a relay id where a node id is expected", "node_id", str(RelayId(key))),
        ("a node id where a relay id is expected", "relay_id", good),
        ("another prefix", "node_id", bech32m.encode("tor", [0, *symbols])),
        ("version 1", "node_id", bech32m.encode("onr", [1, *symbols])),
        ("no version", "node_id", bech32m.encode("onr", [])),
        ("a filling bit that is not zero", "node_id", bech32m.encode("onr", [0, *filled])),
        ("a text of 31 bytes", "node_id", bech32m.encode("onr", [0, *bech32m.to_symbols(key[:31])])),
        ("a text of 33 bytes", "node_id", bech32m.encode("onr", [0, *bech32m.to_symbols(key + b"\0")])),
        ("a point of mixed order", "node_id", str(NodeId(bindings.crypto_core_ed25519_add(key, ORDER_8)))),
        ("one character changed", "node_id", good[:30] + ("q" if good[30] != "q" else "p") + good[31:]),
        ("two characters changed places", "node_id", good[:9] + good[10] + good[9] + good[11:]),
        ("the last character missing", "node_id", good[:-1]),
        ("both cases mixed", "node_id", good[:-8] + good[-8:].upper()),
        ("a space in front", "node_id", " " + good),
    ]
    return [{"name": name, "kind": kind, "text": text, "error": "InvalidId"} for name, kind, text in texts]


THINGS = ("signing-cert", "link-server", "link-client", "attach", "voucher", "relay", "reach-cert", "reach")


def sign_vectors():
    accept = []
    for thing in THINGS:
        key, body = secret(f"sign {thing}"), SeededRng(thing).token(len(thing) * 3)
        accept.append(signed(f"thing {thing}", key, thing, body))
    accept.append(signed("an empty body", secret("sign empty"), "live", b""))
    return {
        "chapter": CHAPTER,
        "about": "signatures over a labelled body",
        "accept": accept,
        "reject": bad_signatures(),
    }


def signed(name, key, thing, body):
    return {
        "name": name,
        "seed": key.seed.hex(),
        "public": key.public.hex(),
        "thing": thing,
        "body": body.hex(),
        "message": signed_message(thing, body).hex(),
        "signature": key.sign(thing, body).hex(),
    }


def bad_signatures():
    key, body = secret("sign bad"), b"body"
    good = key.sign("relay", body)
    beyond = good[:32] + little(int.from_bytes(good[32:], "little") + L)
    torsion = bindings.crypto_core_ed25519_add(good[:32], ORDER_8) + good[32:]
    cases = [
        ("another thing", key.public, "reach", body, good),
        ("a body that ends the label elsewhere", key.public, "rela", b"y/1\0" + body, good),
        ("another body", key.public, "relay", body + b"\0", good),
        ("another key", secret("sign other").public, "relay", body, good),
        ("one bit of R changed", key.public, "relay", body, bytes([good[0] ^ 1]) + good[1:]),
        ("one bit of S changed", key.public, "relay", body, good[:32] + bytes([good[32] ^ 1]) + good[33:]),
        ("S + L, the same scalar beyond the group's order", key.public, "relay", body, beyond),
        ("R plus a point of order 8", key.public, "relay", body, torsion),
        ("63 bytes", key.public, "relay", body, good[:-1]),
        ("65 bytes", key.public, "relay", body, good + b"\0"),
        ("the unlabelled signature", key.public, "relay", body, bindings.crypto_sign(body, key._expanded)[:64]),
        ("the identity as key and R, S = 0", little(1), "relay", body, little(1) + bytes(32)),
    ]
    return [
        {
            "name": name,
            "public": public.hex(),
            "thing": thing,
            "body": body.hex(),
            "signature": signature.hex(),
            "error": "BadSignature",
        }
        for name, public, thing, body, signature in cases
    ]


def blind_vectors():
    accept = []
    for number, period in enumerate((0, 1, 20_000, 20_001, 2**40)):
        key, body = secret(f"blind {number // 2}"), SeededRng(period).token(48)
        blinded, signature = blind_sign(key, period, "reach-cert", body)
        factor = hashlib.sha512(b"onionrelay/blind/1\0" + key.public + period.to_bytes(8, "big")).digest()
        accept.append(
            {
                "name": f"node {number // 2}, period {period}",
                "seed": key.seed.hex(),
                "node_id": key.public.hex(),
                "period": period,
                "factor": little(int.from_bytes(factor, "little") % L).hex(),
                "blinded": blinded.raw.hex(),
                "thing": "reach-cert",
                "body": body.hex(),
                "signature": signature.hex(),
            }
        )
    moments = (43_199, 43_200, 129_599, 129_600, 1_750_031_999, 1_750_075_199, 1_750_075_200, 4_294_967_295)
    return {
        "chapter": CHAPTER,
        "about": "blinded keys and signatures, and the period of a moment",
        "accept": accept,
        "periods": [{"unix": unix, "period": period_at(unix)} for unix in moments],
        "reject": bad_blindings(),
    }


def bad_blindings():
    key, body = secret("blind 0"), b"body"
    node_id = NodeId(key.public)
    blinded, signature = blind_sign(key, 7, "reach-cert", body)
    cases = [
        ("under the key of the next period", blind_public(node_id, 8), signature),
        ("under the node id itself", node_id, signature),
        ("made with the node's own key", blinded, key.sign("reach-cert", body)),
    ]
    return [
        {
            "name": name,
            "public": public.raw.hex(),
            "thing": "reach-cert",
            "body": body.hex(),
            "signature": signature.hex(),
            "error": "BadSignature",
        }
        for name, public, signature in cases
    ]
