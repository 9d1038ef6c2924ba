"""One valid value of every structure on the wire, and how to write and read it: the table all wire tests walk."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nacl.bindings import crypto_sign_seed_keypair

import onionrelay.wire
from onionrelay.base.errors import DestroyReason
from onionrelay.base.ids import BlindedKey, HandleKey, NodeId, RecordKey, RelayId, SigningKey
from onionrelay.base.limits import BUILD, MAX_CONTROL_MESSAGE
from onionrelay.wire import attach, build, cell, control, descriptor, directory, link, reach, relay
from onionrelay.wire.address import Address, Endpoint, Transport

NET = bytes(range(8))
NONCE = bytes(range(32))
SIG = bytes([0x51]) * 64
PAD = bytes([0xA5]) * 44
IPV4 = Address("192.0.2.1", 443)
IPV6 = Address("2001:db8::1", 9001)
EXTRA = ((1, b"one"), (7, b""))
TIME = 1_800_000_000


def point(seed: int) -> bytes:
    return crypto_sign_seed_keypair(bytes([seed]) * 32)[0]


POINTS = [point(seed) for seed in range(1, 9)]
RELAY = RelayId(POINTS[0])
SIGNING = SigningKey(POINTS[1])
HANDLE = HandleKey(POINTS[2])

ENDPOINT = Endpoint(Transport.TLS | Transport.QUIC, IPV4, IPV6)
CERT = link.SigningCert(SIGNING, TIME, SIG)
VOUCHER = attach.Voucher(RELAY, HANDLE, TIME, TIME + 10_800, 64, 120, SIG)
FINAL = reach.FinalEntry(VOUCHER, bytes([0x77]) * 32)

SAMPLES: list[Any] = [
    IPV4,
    IPV6,
    ENDPOINT,
    Endpoint(),
    Endpoint.at(Transport.TLS, IPV6),
    CERT,
    link.HelloClient(NET, (1, 3), 0x8000_0000_0000_000F, NONCE, link.LinkRole.RELAY, link.PaddingPolicy.FULL, EXTRA),
    link.HelloServer(NET, 1, 15, NONCE, RELAY, CERT, IPV4, TIME // 600, SIG, EXTRA),
    link.HelloRefused(link.HelloRefusal.WRONG_NETWORK),
    link.Auth(RELAY, CERT, SIG),
    build.BuildRecord(role=build.Role.FORWARD, window=3_000_000, lifetime=21_600, next_id=RELAY, endpoint=ENDPOINT),
    build.BuildRecord(role=build.Role.HANDLE, window=1, lifetime=10, next_id=HANDLE, ticket=bytes(range(16))),
    build.BuildRecord(role=build.Role.ENDPOINT, window=1, lifetime=0, bulk=False, extensions=EXTRA),
    build.ReplyBody(build.BuildStatus.OK),
    build.ReplyBody(build.BuildStatus.POW_NEEDED, 9, bytes([1]) * 36),
    build.Extend(RELAY, ENDPOINT, bytes([0xEE]) * BUILD),
    build.ExtendFailed(build.BuildStatus.NEXT_SILENT, 2),
    VOUCHER,
    attach.Attach(
        handle=HANDLE,
        ttl=86_400,
        max_circuits=64,
        builds_per_minute=120,
        pow_effort=0,
        k_ticket=bytes([0x77]) * 32,
        signature=SIG,
        extensions=EXTRA,
    ),
    attach.AttachAccepted(VOUCHER),
    attach.VoucherRequest(),
    attach.AttachRefused(attach.AttachRefusal.BUSY, EXTRA),
    attach.Detach(EXTRA),
    descriptor.RelayDescriptor(
        net_id=NET,
        relay_id=RELAY,
        signing_cert=CERT,
        seq=7,
        published=TIME,
        expires=TIME + 93_600,
        onion_x25519=bytes([0xB0]) * 32,
        onion_mlkem=bytes([0xEC]) * 1184,
        endpoints=(ENDPOINT, Endpoint.at(Transport.WEBSOCKET, IPV4)),
        roles=descriptor.Roles.GUARD | descriptor.Roles.DHT,
        features=15,
        nat=descriptor.NatClass.PUBLIC,
        bandwidth=23,
        family=tuple(RelayId(raw) for raw in sorted(POINTS[3:6])),
        versions=(1, 2),
        dht_slot=3,
        max_circuits=4096,
        max_hold=21_600,
        signature=SIG,
        extensions=EXTRA,
    ),
    reach.ReachRecord(
        net_id=NET,
        period=20_000,
        revision=600 << 16,
        expires=TIME,
        blinded=BlindedKey(POINTS[3]),
        record_key=RecordKey(POINTS[4]),
        cert=SIG,
        salt=bytes(range(16)),
        ciphertext=bytes([0xC7]) * 3088,
        signature=SIG,
    ),
    FINAL,
    reach.ReachContents(
        node_id=NodeId(POINTS[5]),
        onion_x25519=bytes([0xB0]) * 32,
        onion_mlkem=bytes([0xEC]) * 1184,
        features=1,
        finals=(FINAL, FINAL),
        extensions=EXTRA,
    ),
    directory.DirGet(255),
    directory.DirData(256, (b"first", b"second"), EXTRA),
    directory.DirPut(b"descriptor"),
    directory.DirReceipt(directory.StoreResult.STORED),
    directory.DhtGet(NONCE),
    directory.DhtAnswer((b"value",)),
    directory.DhtPut(NONCE, b"record"),
    directory.DhtReceipt(directory.StoreResult.STALE, EXTRA),
]


def encode(value: Any) -> bytes:
    return value.encode(PAD) if isinstance(value, build.BuildRecord) else value.encode()


def recode(value: Any, body: bytes) -> bytes:
    """What decoding `body` to `value` should give back; only a build record's random padding is no part of a value."""
    return (
        value.encode(body[-44:] if not value.extensions else body[108 + body[107] :])
        if isinstance(value, build.BuildRecord)
        else value.encode()
    )


def message_classes() -> set[type]:
    """Every class of the wire floor with a decoder; wire/frames.py has a table of its own, in its own test."""
    modules = [
        importlib.import_module(f"onionrelay.wire.{module.name}")
        for module in pkgutil.iter_modules(onionrelay.wire.__path__)
        if module.name != "frames"
    ]
    return {
        thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and hasattr(thing, "decode")
    }


@dataclass(frozen=True)
class Parser:
    """A decoder that is a function, valid input for it, and the way back where there is one."""

    name: str
    parse: Callable[[bytes], Any]
    valid: list[bytes]
    back: Callable[[Any], bytes] | None = None


def feed_all(body: bytes) -> Any:
    """Run a control message assembler over whole small bodies; a shorter last one is fed as it is."""
    assembler = control.Assembler(MAX_CONTROL_MESSAGE)
    return [assembler.feed(memoryview(body)[at : at + 1104]) for at in range(0, len(body), 1104)]


def feed_payloads(body: bytes) -> Any:
    assembler = relay.MessageAssembler()
    return [assembler.feed(relay.parse_payload(body[at : at + 1088])) for at in range(0, len(body), 1088)]


def control_bodies(size: int) -> bytes:
    cells = control.fragment(cell.Cmd.DIR, 2, bytes([0xAB]) * size)
    return b"".join(cells[at + 8 : at + 1112] for at in range(0, len(cells), 1112))


QUESTION, ANSWER = directory.DhtPut(NONCE, b"record"), directory.DirData(3, (b"a", b"bc"))

PARSERS = [
    Parser(
        "credit",
        cell.parse_credit,
        [cell.pack_credit([(9, 16_384)])[8:], cell.pack_credit([(n, n) for n in range(1, 139)])[8:]],
        lambda entries: cell.pack_credit(entries)[8:],
    ),
    Parser(
        "destroy",
        cell.parse_destroy,
        [cell.pack_destroy(5, reason)[8:] for reason in DestroyReason],
        None,
    ),
    Parser(
        "ping",
        cell.parse_ping,
        [cell.pack_ping(cell.Cmd.PING, 0xFFFF_0000_1234_5678)[8:]],
        lambda token: cell.pack_ping(cell.Cmd.PONG, token)[8:],
    ),
    Parser("build_ack", cell.parse_build_ack, [bytes(1104)], lambda _: bytes(1104)),
    Parser(
        "header",
        lambda raw: (cell.check_header(*cell.HEADER.unpack(raw[:8].ljust(8, b"\0"))), raw)[1],
        [cell.pack_cell(9, cmd, bytes(cell.CELL_SIZE[cmd] - 8))[:8] for cmd in (3, 4, 5, 6, 7, 15)],
        None,
    ),
    Parser(
        "payload",
        relay.parse_payload,
        [
            relay.pack_payload(relay.RelayCmd.ECHO, 1, b"12345678"),
            relay.pack_payload(relay.RelayCmd.SESS, 0, bytes([1]) * 16_352, room=16_352),
            relay.pack_payload(relay.RelayCmd.DIR_DATA, 2, bytes([1]) * 1080, more=True),
        ],
        None,
    ),
    Parser("control assembler", feed_all, [control_bodies(n) for n in (0, 1, 1098, 1099, 5000)], None),
    Parser(
        "message assembler",
        feed_payloads,
        [b"".join(relay.split_message(relay.RelayCmd.DHT_ANSWER, 3, bytes([2]) * n)) for n in (0, 1080, 1081, 4000)],
        None,
    ),
    Parser(
        "from_control",
        lambda raw: directory.from_control(cell.Cmd.DHT, 3, raw),
        [directory.to_control(QUESTION, 77)[2]],
        lambda got: directory.to_control(got[1], got[0])[2],
    ),
    Parser(
        "from_relay",
        lambda raw: directory.from_relay(relay.RelayCmd.DIR_DATA, raw),
        [directory.to_relay(ANSWER)[1]],
        lambda got: directory.to_relay(got)[1],
    ),
]
