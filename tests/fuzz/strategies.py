"""Hypothesis strategies for every structure on the wire. Keys come from a small pool of real ones."""

from hypothesis import strategies as st

from onionrelay.base.ids import BlindedKey, HandleKey, NodeId, RecordKey, RelayId, SigningKey
from onionrelay.base.limits import BUILD
from onionrelay.wire import attach, build, descriptor, directory, link, reach
from onionrelay.wire.address import Address, Endpoint, Transport
from tests.wire.samples import POINTS

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFF_FFFF)
u64 = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)


def raw(size):
    return st.binary(min_size=size, max_size=size) if size <= 64 else u8.map(lambda byte: bytes([byte]) * size)


def key(kind):
    return st.sampled_from(POINTS).map(kind)


def ascending(elements, least, most):
    return st.lists(elements, min_size=least, max_size=most, unique=True).map(sorted).map(tuple)


extensions = st.dictionaries(st.integers(0, 0x7FFF), st.binary(max_size=20), max_size=3).map(
    lambda found: tuple(sorted(found.items()))
)
few_extensions = st.dictionaries(st.integers(0, 0x7FFF), st.binary(max_size=8), max_size=3).map(
    lambda found: tuple(sorted(found.items()))
)
ipv4 = st.builds(Address.of, st.ip_addresses(v=4).map(str), u16)
ipv6 = st.builds(Address.of, st.ip_addresses(v=6).map(str), u16).filter(lambda a: a.is_ipv6)
dialable4 = ipv4.filter(lambda a: a.port and any(a.packed))
dialable6 = ipv6.filter(lambda a: a.port and any(a.packed))
places = st.builds(Endpoint.at, st.integers(1, 255).map(Transport), dialable4) | st.builds(
    Endpoint.at, st.integers(1, 255).map(Transport), dialable6, dialable4
)
signature = raw(64)
cert = st.builds(link.SigningCert, key(SigningKey), u32, signature)
tens = u16.map(lambda n: n * 10)


@st.composite
def vouchers(draw):
    start = draw(st.integers(0, 7_000_000)) * 600
    end = start + draw(st.integers(1, 18)) * 600
    return draw(
        st.builds(attach.Voucher, key(RelayId), key(HandleKey), st.just(start), st.just(end), u16, u16, signature)
    )


@st.composite
def build_records(draw):
    role = draw(st.sampled_from(build.Role))
    forward, handle = role is build.Role.FORWARD, role is build.Role.HANDLE
    return build.BuildRecord(
        role=role,
        window=draw(u32),
        lifetime=draw(tens),
        next_id=draw(key(RelayId)) if forward else draw(key(HandleKey)) if handle else None,
        endpoint=draw(places) if forward else Endpoint(),
        bulk=draw(st.booleans()),
        cc_profile=draw(u8),
        ticket=draw(raw(16)) if handle else bytes(16),
        pow_effort=draw(u32),
        pow_nonce=draw(raw(16)),
        extensions=draw(few_extensions),
    )


@st.composite
def descriptors(draw):
    start = draw(st.integers(0, 7_000_000)) * 600
    return draw(
        st.builds(
            descriptor.RelayDescriptor,
            net_id=raw(8),
            relay_id=key(RelayId),
            signing_cert=cert,
            seq=u64,
            published=st.just(start),
            expires=st.integers(1, 156).map(lambda n: start + n * 600),
            onion_x25519=raw(32),
            onion_mlkem=raw(1184),
            next_onion_digest=raw(32),
            endpoints=st.lists(places, min_size=1, max_size=2).map(tuple),
            roles=u16.map(descriptor.Roles),
            features=u64,
            nat=st.sampled_from(descriptor.NatClass),
            bandwidth=u8,
            family=ascending(key(RelayId), 0, 8),
            versions=ascending(u16, 1, 16),
            pow_effort=u32,
            pow_seed=raw(32),
            load=u8,
            dht_slot=st.integers(0, 3),
            max_circuits=u16,
            max_hold=tens,
            extensions=extensions,
            signature=signature,
        )
    )


finals = st.builds(reach.FinalEntry, vouchers(), raw(32))
items = st.lists(st.binary(min_size=1, max_size=40), max_size=5).map(tuple)
result = st.sampled_from(directory.StoreResult)

VALUES = {
    Address: ipv4 | ipv6,
    Endpoint: places | st.just(Endpoint()),
    link.SigningCert: cert,
    link.HelloClient: st.builds(
        link.HelloClient,
        raw(8),
        ascending(u16, 1, 16),
        u64,
        raw(32),
        st.sampled_from(link.LinkRole),
        st.sampled_from(link.PaddingPolicy),
        extensions,
    ),
    link.HelloServer: st.builds(
        link.HelloServer, raw(8), u16, u64, raw(32), key(RelayId), cert, ipv4 | ipv6, u32, signature, extensions
    ),
    link.HelloRefused: st.builds(link.HelloRefused, st.sampled_from(link.HelloRefusal), extensions),
    link.Auth: st.builds(link.Auth, key(RelayId), cert, signature, extensions),
    build.BuildRecord: build_records(),
    build.ReplyBody: st.builds(
        build.ReplyBody, st.sampled_from(build.BuildStatus), u8, st.binary(max_size=build.REPLY_ROOM)
    ),
    build.Extend: st.builds(build.Extend, key(RelayId), places, raw(BUILD)),
    build.ExtendFailed: st.builds(build.ExtendFailed, st.sampled_from(list(build.BuildStatus)[1:]), u8),
    attach.Voucher: vouchers(),
    attach.Attach: st.builds(
        attach.Attach,
        handle=key(HandleKey),
        ttl=u32,
        max_circuits=u16,
        builds_per_minute=u16,
        pow_effort=u32,
        k_ticket=raw(32),
        signature=signature,
        extensions=extensions,
    ),
    attach.AttachAccepted: st.builds(attach.AttachAccepted, vouchers(), extensions),
    attach.VoucherRequest: st.builds(attach.VoucherRequest, extensions),
    attach.AttachRefused: st.builds(attach.AttachRefused, st.sampled_from(attach.AttachRefusal), extensions),
    attach.Detach: st.builds(attach.Detach, extensions),
    descriptor.RelayDescriptor: descriptors(),
    reach.ReachRecord: st.builds(
        reach.ReachRecord,
        net_id=raw(8),
        period=u64,
        revision=u64,
        expires=st.integers(0, 7_000_000).map(lambda n: n * 600),
        blinded=key(BlindedKey),
        record_key=key(RecordKey),
        cert=signature,
        salt=raw(16),
        ciphertext=raw(3088),
        signature=signature,
    ),
    reach.FinalEntry: finals,
    reach.ReachContents: st.builds(
        reach.ReachContents,
        node_id=key(NodeId),
        onion_x25519=raw(32),
        onion_mlkem=raw(1184),
        features=u64,
        finals=st.lists(finals, min_size=1, max_size=6).map(tuple),
        pow_effort=u32,
        pow_seed=raw(32),
        policy=u16,
        extensions=extensions,
    ),
    directory.DirGet: st.builds(directory.DirGet, st.integers(0, 255), extensions),
    directory.DirData: st.builds(directory.DirData, st.integers(1, 256), items, extensions),
    directory.DirPut: st.builds(directory.DirPut, st.binary(min_size=1, max_size=200), extensions),
    directory.DirReceipt: st.builds(directory.DirReceipt, result, extensions),
    directory.DhtGet: st.builds(directory.DhtGet, raw(32), extensions),
    directory.DhtAnswer: st.builds(directory.DhtAnswer, items, extensions),
    directory.DhtPut: st.builds(directory.DhtPut, raw(32), st.binary(min_size=1, max_size=200), extensions),
    directory.DhtReceipt: st.builds(directory.DhtReceipt, result, extensions),
}
"""One strategy for each class of tests/wire/samples.py; test_wire.py checks that none is missing."""
