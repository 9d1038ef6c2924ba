"""Every vector file of chapters 5 and 7 that is about whole structures, against the package."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from onionrelay.base import errors
from onionrelay.base.ids import NodeId, RelayId
from onionrelay.core.directory.descriptor import verify_descriptor
from onionrelay.core.directory.placement import reach_keys, storers
from onionrelay.core.directory.reach import open_record
from onionrelay.core.directory.table import RelayTable, replace
from onionrelay.core.path.groups import Side, address_group, kad_position, side_of, subnet
from onionrelay.core.path.policy import PathPolicy
from onionrelay.crypto.blind import blind_public
from onionrelay.crypto.signing import SigningSecret, signed_message, verify
from onionrelay.wire.address import Address
from onionrelay.wire.attach import Attach
from onionrelay.wire.descriptor import RelayDescriptor, Roles
from onionrelay.wire.reach import ReachRecord
from tests.core.directory import vectors
from tests.core.relays import ALL_ROLES, NOW, bare, bare_table
from tests.vectors.paths import VECTORS

FILES = {name: json.loads((VECTORS / f"{name}.json").read_text()) for name in vectors.FILES}
NET = bytes.fromhex(FILES["descriptors"]["net_id"])


def cases(name, kind):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in FILES[name][kind]])


def unhex(case, *names):
    return [bytes.fromhex(case[name]) for name in names]


def refused(case):
    return pytest.raises(getattr(errors, case["error"]), match=case.get("reason") or None)


def test_the_files_are_what_the_generator_writes():
    for name, make in vectors.FILES.items():
        assert (VECTORS / f"{name}.json").read_text() == vectors.text_of(make()), name


@cases("places", "accept")
def test_places(case):
    address, policy = Address.parse(case["address"]), PathPolicy(NET, testnet=case["testnet"])
    group = address_group(address, policy)
    assert group.hex() == case["group"]
    assert subnet(address, policy).hex() == case["subnet"]
    assert side_of(group) is Side[case["side"].upper()]
    relay_id = RelayId.decode(bytes.fromhex(case["relay_id"]))
    assert kad_position(relay_id, address, case["slot"], policy).hex() == case["position"]


@cases("storers", "accept")
def test_storers(case):
    file = FILES["storers"]
    node_id = NodeId.decode(bytes.fromhex(file["node_id"]))
    assert blind_public(node_id, file["period"]).raw.hex() == file["blinded"]
    key = bytes.fromhex(case["key"])
    assert key in reach_keys(node_id, file["period"])
    entries = [
        replace(
            bare(relay["relay_id"], "9.9.9.9:443", roles=ALL_ROLES if relay["dht"] else ALL_ROLES & ~Roles.DHT),
            relay_id=RelayId(bytes.fromhex(relay["relay_id"])),
            group=bytes.fromhex(relay["group"]),
            side=Side[relay["side"].upper()],
            position=bytes.fromhex(relay["position"]),
        )
        for relay in file["relays"]
    ]
    found = storers(key, bare_table(entries), NOW)
    assert [entry.relay_id.raw.hex() for entry in found] == case["storers"]


def judge(case):
    return verify_descriptor(bytes.fromhex(case["bytes"]), case["unix"], PathPolicy(NET, testnet=case["testnet"]))


@cases("descriptors", "accept")
def test_descriptors(case):
    entry = judge(case)
    assert entry.relay_id.raw.hex() == case["relay_id"]
    assert [key.raw.hex() for key in entry.signing_keys(case["unix"])] == [case["signing_key"]]
    descriptor = RelayDescriptor.decode(bytes.fromhex(case["bytes"]))
    cert = descriptor.signing_cert
    for key, thing, body, signature in (
        (entry.relay_id, "signing-cert", cert.signed_part, cert.signature),
        (cert.signing_key, "relay", descriptor.signed_part, descriptor.signature),
    ):
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, signed_message(thing, body))


@cases("descriptors", "reject")
def test_descriptors_refused(case):
    with refused(case):
        judge(case)


def check_attach(case):
    raw, final, transcript = unhex(case, "attach", "final", "transcript")
    message = Attach.decode(raw)
    verify(message.handle, "attach", message.signed_part(RelayId.decode(final), transcript), message.signature)
    return message


@cases("attachments", "accept")
def test_attachments(case):
    message = check_attach(case)
    seed, final, transcript = unhex(case, "handle_seed", "final", "transcript")
    secret = SigningSecret(seed)
    assert message.handle.raw == secret.public
    assert secret.sign("attach", final + transcript + bytes.fromhex(case["attach"])[:-64]) == message.signature


@cases("attachments", "reject")
def test_attachments_refused(case):
    with refused(case):
        check_attach(case)


def read(case):
    file = FILES["reach-records"]
    policy = PathPolicy(NET)
    table = RelayTable(policy)
    for raw in file["descriptors"]:
        assert table.add(bytes.fromhex(raw), file["unix"]).changed
    node_id = NodeId.decode(bytes.fromhex(file["node_id"]))
    return open_record(bytes.fromhex(case["record"]), node_id, table, case.get("unix", file["unix"]), policy)


@cases("reach-records", "accept")
def test_reach_records(case):
    file = FILES["reach-records"]
    opened = read(case)
    assert opened.version == (file["period"], file["revision"])
    assert [[final.voucher.encode().hex(), final.k_ticket.hex()] for final in opened.finals] == case["finals"]
    assert [[relay_id.raw.hex(), why] for relay_id, why in opened.rejected] == case["rejected"]
    record = ReachRecord.decode(bytes.fromhex(case["record"]))
    for key, thing, body, signature in (
        (record.blinded, "reach-cert", record.cert_part, record.cert),
        (record.record_key, "reach", record.signed_part, record.signature),
    ):
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, signed_message(thing, body))


@cases("reach-records", "reject")
def test_reach_records_refused(case):
    with refused(case):
        read(case)
