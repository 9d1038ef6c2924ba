"""Writes the vectors of chapters 5 and 7: `python -m tests.core.directory.vectors`. All values come from seeds.

What is hashed is worked out here with `hashlib` alone, so that the package is not its own witness.
"""

import hashlib
import json
from dataclasses import replace as change
from ipaddress import ip_address

from msgspec.structs import replace

from onionrelay.base.ids import HandleKey
from onionrelay.crypto.blind import blind_public
from onionrelay.crypto.signing import SigningSecret
from onionrelay.wire.attach import Attach
from onionrelay.wire.descriptor import RelayDescriptor, Roles
from onionrelay.wire.reach import FinalEntry, ReachRecord
from tests.core.reaching import PERIOD, Node
from tests.core.relays import ALL_ROLES, DAY, NET, NOW, Relay, bare, endpoint, public_address
from tests.vectors.paths import VECTORS

PATHS, REACH = "specs/07-directory-and-paths.md", "specs/05-attach-and-reach.md"
OTHER_NET = bytes(8)


def digest(label, *parts):
    return hashlib.sha256(label + b"\0" + b"".join(parts)).digest()


# Chapter 7


def place_case(text, slot, *, testnet=False):
    host, _, port = text.rpartition(":")
    packed = ip_address(host.strip("[]")).packed
    group, block = (packed[:2], packed[:3]) if len(packed) == 4 else (packed[:4], packed[:6])
    relay_id = Relay(text, text).relay_id.raw
    own = hashlib.sha256(relay_id).digest()
    position = digest(b"onionrelay/kad/1", block, bytes([slot]))[:8] + own[:24]
    if testnet:
        group = block = packed + int(port).to_bytes(2, "big")
        position = own
    return {
        "name": f"{text} slot {slot}{' on a test network' * testnet}",
        "address": text,
        "slot": slot,
        "testnet": testnet,
        "relay_id": relay_id.hex(),
        "group": group.hex(),
        "subnet": block.hex(),
        "side": "far" if digest(b"onionrelay/role/1", group)[0] & 1 else "near",
        "position": position.hex(),
    }


def places():
    texts = ["9.8.7.6:443", "9.9.9.9:1", "203.0.113.200:65535", "[2620:fe::9]:443", "[2001:4860:4860::8888]:853"]
    accept = [place_case(text, slot) for slot, text in enumerate(texts[:4])]
    accept += [place_case(texts[4], 3), place_case("127.0.0.1:9001", 0, testnet=True)]
    about = "group, subnet, side and DHT position of a relay with one address"
    return {"chapter": PATHS, "about": about, "accept": accept, "reject": []}


def storers():
    node = Node("stored")
    blinded = blind_public(node.node_id, PERIOD).raw
    place = blinded + PERIOD.to_bytes(8, "big")
    keys = [digest(b"onionrelay/kd/reach/1", place, bytes([replica])) for replica in range(2)]
    relays = [bare(f"s{n}", public_address(n % 18, n)) for n in range(24)]
    relays.append(bare("no storer", public_address(40), roles=ALL_ROLES & ~Roles.DHT))
    listed = [
        {
            "relay_id": entry.relay_id.raw.hex(),
            "group": entry.group.hex(),
            "side": entry.side.name.lower(),
            "position": entry.position.hex(),
            "dht": entry.has(Roles.DHT),
        }
        for entry in relays
    ]

    def chosen(key):
        far = [e for e in relays if e.has(Roles.DHT) and digest(b"onionrelay/role/1", e.group)[0] & 1]
        far.sort(key=lambda entry: [a ^ b for a, b in zip(entry.position, key, strict=True)])
        first = {entry.group: entry for entry in reversed(far)}
        return [entry.relay_id.raw.hex() for entry in far if first[entry.group] is entry][:4]

    accept = [{"name": f"replica {n}", "key": key.hex(), "storers": chosen(key)} for n, key in enumerate(keys)]
    return {
        "chapter": PATHS,
        "about": "where the record of a node is kept, closest first",
        "node_id": node.node_id.raw.hex(),
        "period": PERIOD,
        "blinded": blinded.hex(),
        "relays": listed,
        "accept": accept,
        "reject": [],
    }


def signed(relay, **fields):
    unsigned = replace(RelayDescriptor.decode(relay.describe()), **fields)
    return replace(unsigned, signature=relay.signing.sign("relay", unsigned.signed_part)).encode()


def descriptors():
    relay, other = Relay("described", "9.8.7.6:443"), Relay("other", "9.9.9.9:443")
    local = Relay("local", "127.0.0.1:9001")
    family = (other.relay_id,)
    full = relay.describe(bandwidth=20, family=family, dht_slot=2, next_onion_digest=bytes([7]) * 32)
    accept = [
        {"name": "plain", "bytes": relay.describe().hex(), "unix": NOW, "testnet": False},
        {"name": "with everything", "bytes": full.hex(), "unix": NOW + 26 * 3600 - 1, "testnet": False},
        {"name": "published by a fast clock", "bytes": full.hex(), "unix": NOW - 1200, "testnet": False},
        {"name": "of a test network", "bytes": local.describe().hex(), "unix": NOW, "testnet": True},
    ]
    for case, described in zip(accept, (relay, relay, relay, local), strict=True):
        case |= {"relay_id": described.relay_id.raw.hex(), "signing_key": described.signing.public.hex()}
    flipped = bytearray(relay.describe())
    flipped[1300] ^= 1
    wrong = {
        "another network": (signed(relay, net_id=OTHER_NET), NOW, "BadRecord"),
        "expired": (full, NOW + 26 * 3600, "BadRecord"),
        "from the future": (full, NOW - 1201, "BadRecord"),
        "a private address": (local.describe(), NOW, "BadRecord"),
        "one private address of two": (
            signed(relay, endpoints=(endpoint("9.8.7.6:443"), endpoint("10.0.0.1:443"))),
            NOW,
            "BadRecord",
        ),
        "an expired certificate": (signed(relay, signing_cert=relay.certify(NOW)), NOW, "BadRecord"),
        "a certificate for too long": (signed(relay, signing_cert=relay.certify(NOW + 31 * DAY)), NOW, "BadRecord"),
        "a certificate of another relay": (signed(relay, signing_cert=other.cert), NOW, "BadSignature"),
        "a changed byte": (bytes(flipped), NOW, "BadSignature"),
        "an onion key of low order": (signed(relay, onion_x25519=bytes(32)), NOW, "MalformedMessage"),
        "an onion key out of range": (signed(relay, onion_mlkem=b"\xff" * 1184), NOW, "MalformedMessage"),
    }
    reject = [
        {"name": name, "bytes": raw.hex(), "unix": unix, "testnet": False, "error": error}
        for name, (raw, unix, error) in wrong.items()
    ]
    about = "relay descriptors, and the time at which they are judged"
    return {"chapter": PATHS, "about": about, "net_id": NET.hex(), "accept": accept, "reject": reject}


# Chapter 5


def attachments():
    relay, other = Relay("final", "9.8.7.6:443"), Relay("other", "9.9.9.9:443")
    secret = SigningSecret(bytes([3]) * 32)
    transcript = bytes(range(32))
    fields = {"ttl": 43_200, "max_circuits": 64, "builds_per_minute": 0, "pow_effort": 0, "k_ticket": bytes([5]) * 32}
    unsigned = Attach(handle=HandleKey(secret.public), signature=b"", **fields)
    attach = change(unsigned, signature=secret.sign("attach", unsigned.signed_part(relay.relay_id, transcript)))
    good = {
        "name": "a handle",
        "handle_seed": secret.seed.hex(),
        "final": relay.relay_id.raw.hex(),
        "transcript": transcript.hex(),
        "attach": attach.encode().hex(),
    }
    again = change(attach, handle=HandleKey(SigningSecret(bytes([4]) * 32).public))
    wrong = {
        "another final hop": {"final": other.relay_id.raw.hex()},
        "another link": {"transcript": bytes(32).hex()},
        "another handle": {"attach": again.encode().hex()},
        "another life": {"attach": change(attach, ttl=43_201).encode().hex()},
        "another ticket key": {"attach": change(attach, k_ticket=bytes(32)).encode().hex()},
    }
    reject = [
        {"name": name, **good, **fault, "error": "BadSignature"} | {"name": name} for name, fault in wrong.items()
    ]
    return {"chapter": REACH, "about": "ATTACH and the signature of its handle", "accept": [good], "reject": reject}


FINALS = [Relay(f"final {n}", public_address(n)) for n in range(3)]


def records():
    node, other = Node("recorded"), Node("another")
    good = [node.final(relay, number) for number, relay in enumerate(FINALS)]
    cases = {
        "three final hops": good,
        "an expired voucher": [node.final(FINALS[0], unix_now=NOW - 3 * 3600), *good[1:]],
        "a voucher from the future": [node.final(FINALS[0], unix_now=NOW + 1800), *good[1:]],
        "a forged voucher": [FinalEntry(replace(good[0].voucher, signature=bytes(64)), good[0].k_ticket), *good[1:]],
        "a voucher for another handle": [
            FinalEntry(replace(good[0].voucher, handle=node.handle(9)), good[0].k_ticket),
            *good[1:],
        ],
        "a voucher of another network": [node.final(FINALS[0], net_id=OTHER_NET), *good[1:]],
        "a relay nobody knows": [node.final(Relay("unknown", public_address(7))), *good[1:]],
        "a final hop twice": [*good, node.final(FINALS[0], 5)],
    }
    reasons = {
        "an expired voucher": "voucher expired",
        "a voucher from the future": "voucher from the future",
        "a relay nobody knows": "relay not known",
        "a final hop twice": "final hop or handle listed twice",
        "three final hops": None,
    }
    accept = []
    for name, entries in cases.items():
        reason = reasons.get(name, "voucher not signed by this relay")
        refused = entries[-1] if name == "a final hop twice" else entries[0]
        kept = [entry for entry in entries if not reason or entry is not refused]
        accept.append(
            {
                "name": name,
                "record": node.record(*entries, revision=7).hex(),
                "finals": [[entry.voucher.encode().hex(), entry.k_ticket.hex()] for entry in kept],
                "rejected": [[refused.voucher.final.raw.hex(), reason]] if reason else [],
            }
        )
    return {
        "chapter": REACH,
        "about": "reach records as a client judges them at `unix`, with its relay table",
        "net_id": NET.hex(),
        "unix": NOW,
        "node_id": node.node_id.raw.hex(),
        "node_seed": node.secret.seed.hex(),
        "period": PERIOD,
        "revision": 7,
        "descriptors": [relay.describe().hex() for relay in FINALS],
        "accept": accept,
        "reject": wrong_records(node, other, good),
    }


def wrong_records(node, other, good):
    secret = node.record_secret()
    raw = node.record(*good, secret=secret)

    def signed_again(**fields):
        record = replace(ReachRecord.decode(raw), **fields)
        return replace(record, signature=secret.secret.sign("reach", record.signed_part)).encode()

    wrong = {
        "another network": (node.record(*good, net_id=OTHER_NET), NOW, "BadRecord", "record of another network"),
        "another period": (node.record(*good, period=PERIOD + 2), NOW, "BadRecord", "record of another period"),
        "expired": (raw, NOW + 3 * 3600, "BadRecord", "record expired"),
        "valid for too long": (signed_again(expires=NOW + 13_200), NOW, "BadRecord", "record valid for too long"),
        "another node": (other.record(*good), NOW, "BadRecord", "record of another node"),
        "another node inside": (
            node.record(contents=other.contents(*good)),
            NOW,
            "BadRecord",
            "record names another node inside",
        ),
        "a changed byte": (raw[:2000] + bytes([raw[2000] ^ 1]) + raw[2001:], NOW, "BadSignature", ""),
        "a certificate for another record key": (
            signed_again(cert=node.record_secret().cert),
            NOW,
            "BadSignature",
            "",
        ),
        "a changed ciphertext, signed": (
            signed_again(ciphertext=bytes(3088)),
            NOW,
            "MalformedMessage",
            "",
        ),
    }
    return [
        {"name": name, "record": record.hex(), "unix": unix, "error": error, "reason": reason}
        for name, (record, unix, error, reason) in wrong.items()
    ]


FILES = {
    "places": places,
    "storers": storers,
    "descriptors": descriptors,
    "attachments": attachments,
    "reach-records": records,
}


def text_of(vectors):
    return json.dumps(vectors, indent=1) + "\n"


def write_all():
    for name, make in FILES.items():
        (VECTORS / f"{name}.json").write_text(text_of(make()))


if __name__ == "__main__":
    write_all()
