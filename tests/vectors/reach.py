"""Vectors of the sealing and the tickets of specs/05-attach-and-reach.md."""

from onionrelay.base.ids import NodeId
from onionrelay.base.limits import REACH_PLAINTEXT
from onionrelay.crypto.blind import blind_public
from onionrelay.crypto.reach import seal_reach
from onionrelay.crypto.ticket import build_ticket, live_ticket
from tests.seeded import SeededRng
from tests.vectors import model
from tests.vectors.identity import secret

CHAPTER = "specs/05-attach-and-reach.md"


def reach_vectors():
    accept = [reach_case(f"node {number}", secret(f"reach {number}").public, 20_000 + number) for number in range(2)]
    good = accept[0]
    changes = {
        "another node": {"node_id": accept[1]["node_id"]},
        "another blinded key": {"blinded": accept[1]["blinded"]},
        "the next period": {"period": good["period"] + 1},
        "another salt": {"salt": bytes(16).hex()},
        "other associated data": {"aad": good["aad"][:-2] + "00"},
        "cut short": {"ciphertext": good["ciphertext"][:-2]},
        "empty": {"ciphertext": ""},
        "a changed byte": {"ciphertext": f"{int(good['ciphertext'][:2], 16) ^ 1:02x}" + good["ciphertext"][2:]},
    }
    reject = [
        {"name": name, "of": good["name"], **change, "error": "MalformedMessage"} for name, change in changes.items()
    ]
    return {"chapter": CHAPTER, "about": "the sealed part of a reach record", "accept": accept, "reject": reject}


def reach_case(name, node, period):
    rng = SeededRng(name)
    node_id = NodeId(node)
    blinded = blind_public(node_id, period)
    salt, aad = rng.token(16), rng.token(157)
    plaintext = rng.token(40).ljust(REACH_PLAINTEXT, b"\0")
    root = model.extract(salt, node + blinded.raw + period.to_bytes(8, "big"))
    return {
        "name": name,
        "node_id": node.hex(),
        "blinded": blinded.raw.hex(),
        "period": period,
        "salt": salt.hex(),
        "aad": aad.hex(),
        "key": model.extract(root, b"onionrelay/reach/1\1").hex(),
        "plaintext": plaintext.hex(),
        "ciphertext": seal_reach(plaintext, node_id, blinded, period, salt=salt, aad=aad).hex(),
    }


def ticket_vectors():
    accept = []
    for number in range(2):
        rng = SeededRng(f"ticket {number}")
        key, subject = rng.token(32), rng.token(32)
        accept.append(
            {
                "name": f"key {number}",
                "k_ticket": key.hex(),
                "subject": subject.hex(),
                "build": build_ticket(key, subject).hex(),
                "live": live_ticket(key, subject).hex(),
            }
        )
    return {"chapter": CHAPTER, "about": "tickets over X of a build record, or a nonce", "accept": accept, "reject": []}
