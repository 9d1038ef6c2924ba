"""Hostile bytes into the packet decoder and into a session: a value or a typed error, never anything else."""

import contextlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from onionrelay.base.errors import MalformedMessage, ProtocolViolation
from onionrelay.base.limits import LARGE_DATA, SESSION_CONTROL_FRAMES, SESSION_WINDOW, SMALL_DATA
from onionrelay.core.session.session import Session
from onionrelay.wire import frames
from onionrelay.wire.frames import FrameCode, Packet
from tests.fuzz.strategies import raw, u16, u32, u64
from tests.seeded import SeededRng

near = st.integers(0, 6) | u32
limits = st.sampled_from([0, 1, 5, 16_384, 16_385, 262_144, 4_194_304]) | u64
FRAMES = st.one_of(
    st.builds(frames.OpenSession, raw(32), u32),
    st.builds(frames.SessionOpened, raw(16), st.just(0) | u32),
    st.builds(frames.StreamOpen, near, u16, st.binary(max_size=40)),
    st.builds(frames.StreamRefused, near, st.sampled_from(frames.RefusalReason)),
    st.builds(frames.StreamData, near, limits, st.binary(min_size=1, max_size=60), st.booleans()),
    st.builds(frames.StreamData, near, limits, st.just(b""), st.just(True)),
    st.builds(frames.MaxData, limits),
    st.builds(frames.MaxStreamData, near, limits),
    st.builds(frames.Reset, near, st.sampled_from(frames.StreamCode), limits),
    st.builds(frames.Stop, near, st.sampled_from(sorted(set(frames.StreamCode) - frames.RESET_ONLY))),
    st.builds(frames.Ping, u64),
    st.builds(frames.Pong, st.just(1) | u64),
    st.builds(frames.Close, st.sampled_from(frames.CloseCode)),
)
PACKETS = st.builds(Packet, u32, st.lists(FRAMES, min_size=1, max_size=8).map(tuple))


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(PACKETS)
def test_a_packet_survives_the_wire(packet):
    body = packet.encode()
    assert Packet.decode(body) == packet
    for cut in range(len(body)):
        with contextlib.suppress(MalformedMessage):
            assert Packet.decode(body[:cut]).encode() == body[:cut]


def test_mutated_packets_decode_or_are_malformed():
    rng = random.Random("mutated packets")
    valid = [
        Packet(1, (frames.StreamOpen(1, 80, b"meta"), frames.StreamData(1, 0, b"data", fin=True))).encode(),
        Packet(
            2, (frames.Reset(1, frames.StreamCode.CANCELLED, 4), frames.Stop(3, frames.StreamCode.RESOURCES))
        ).encode(),
        Packet(0, (frames.OpenSession(bytes(32)), frames.MaxData(9), frames.MaxStreamData(1, 9))).encode(),
        Packet(3, (frames.Ping(1), frames.Pong(2), frames.StreamRefused(1, frames.RefusalReason.BUSY))).encode(),
        Packet(4, (frames.StreamData(1, 0, bytes(LARGE_DATA - 20)),)).encode(),
    ]
    accepted = refused = 0
    for _ in range(20_000):
        body = bytearray(rng.choice(valid))
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(min(len(body), 60))
            body[at : at + rng.choice((0, 1, 1, 1, 4))] = rng.choice(
                (b"\0", b"\xff", rng.randbytes(1), rng.randbytes(4))
            )
        try:
            packet = Packet.decode(bytes(body))
        except MalformedMessage:
            refused += 1
            continue
        accepted += 1
        assert packet.encode() == body, "a second encoding"
    assert accepted > 1000
    assert refused > 1000


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.binary(max_size=SMALL_DATA) | st.binary(max_size=40).map(lambda body: body + bytes(LARGE_DATA - len(body))))
def test_arbitrary_bytes(body):
    with contextlib.suppress(MalformedMessage):
        assert Packet.decode(body).encode() == body


def test_reserved_codes_are_refused():
    for code in set(range(256)) - set(range(1, 13)):
        with contextlib.suppress(MalformedMessage):
            Packet.decode(bytes(4) + bytes([code]) + bytes(40))
            raise AssertionError(f"code {code} is understood")
    assert FrameCode.ACK == 0x10


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(st.booleans(), st.lists(st.lists(FRAMES, min_size=1, max_size=5), max_size=30))
def test_a_session_takes_any_frames_or_says_violation(is_opener, packets):
    session = Session(is_opener=is_opener, rng=SeededRng(0))
    if is_opener:
        for _ in range(3):
            session.write(session.open_stream(80), bytes(100_000))
    first = frames.SessionOpened(bytes(16)) if is_opener else frames.OpenSession(bytes(32))
    session.on_packet(Packet(0, (first,)).encode())
    for number, content in enumerate(packets, 1):
        try:
            session.on_packet(Packet(number, tuple(content)).encode())
        except ProtocolViolation:
            break
        assert session.memory <= SESSION_WINDOW + 300_000
    sent = list(iter(lambda: session.next_packet(large_room=True), None))
    for number, packet in enumerate(sent):
        assert Packet.decode(packet).number == number
    assert len(sent) < SESSION_CONTROL_FRAMES
