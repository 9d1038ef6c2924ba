"""Session packets: the vectors of specs/06-sessions.md, and what they cannot say."""

import json
from pathlib import Path

import pytest

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.base.limits import LARGE_DATA, SMALL_DATA, STREAM_METADATA
from onionrelay.wire import frames
from onionrelay.wire.frames import FrameCode, Packet
from tests.wire.test_vectors import VECTORS, body_of, plain, unpack

CASES = [
    pytest.param(case, id=f"{path.name}: {case['name']}")
    for path in sorted(Path(VECTORS).glob("frames-*.json"))
    for case in json.loads(path.read_text())["cases"]
]
NAMES = {
    frames.OpenSession: "OPEN_SESSION",
    frames.SessionOpened: "SESSION_OPENED",
    frames.StreamOpen: "STREAM_OPEN",
    frames.StreamRefused: "STREAM_REFUSED",
    frames.StreamData: "STREAM",
    frames.MaxData: "MAX_DATA",
    frames.MaxStreamData: "MAX_STREAM_DATA",
    frames.Reset: "RESET",
    frames.Stop: "STOP",
    frames.Ping: "PING",
    frames.Pong: "PONG",
    frames.Close: "CLOSE",
}


def described(packet):
    return {
        "number": packet.number,
        "frames": [{"frame": NAMES[type(frame)], **plain(frame)} for frame in packet.frames],
    }


@pytest.mark.parametrize("case", CASES)
def test_vector(case):
    body = body_of(case)
    if "error" in case:
        assert case["error"] == "MalformedMessage"
        with pytest.raises(MalformedMessage):
            Packet.decode(body)
        return
    packet = Packet.decode(body)
    assert described(packet) == unpack(case["value"])
    assert packet.encode() == body
    assert Packet.decode(memoryview(bytearray(body))) == packet


def test_every_frame_and_code_has_vectors():
    cases = [param.values[0] for param in CASES]
    accepted = [frame for case in cases if "value" in case for frame in case["value"]["frames"]]
    assert {frame["frame"] for frame in accepted} == set(NAMES.values())
    assert {frame["reason"] for frame in accepted if "reason" in frame} == set(frames.RefusalReason)
    assert {frame["code"] for frame in accepted if frame["frame"] == "RESET"} == set(frames.StreamCode)
    stops = {frame["code"] for frame in accepted if frame["frame"] == "STOP"}
    assert stops == set(frames.StreamCode) - frames.RESET_ONLY
    assert {frame["code"] for frame in accepted if frame["frame"] == "CLOSE"} == set(frames.CloseCode)


def test_the_codes_are_those_of_the_chapter():
    assigned = {FrameCode[name] for name in NAMES.values()}
    assert assigned == set(range(1, 13))
    assert set(FrameCode) - assigned == set(range(0x10, 0x15))


@pytest.mark.parametrize(("size", "fits"), [(4, False), (5, True), (SMALL_DATA, True), (SMALL_DATA + 1, False)])
def test_small_packet_sizes(size, fits):
    assert frames.is_packet_size(size) is fits


@pytest.mark.parametrize("size", [LARGE_DATA - 1, LARGE_DATA + 1])
def test_a_large_packet_has_one_size(size):
    assert frames.is_packet_size(LARGE_DATA)
    assert not frames.is_packet_size(size)
    with pytest.raises(UsageError):
        Packet(0, (frames.StreamData(1, 0, bytes(size - 20)),)).encode()


def test_the_header_of_stream_data_is_what_the_frame_begins_with():
    frame = frames.StreamData(7, 1 << 40, b"abc", fin=True)
    assert frame.encode() == frames.stream_header(7, 1 << 40, 3, fin=True) + b"abc"
    assert len(frame.encode()) == frames.StreamData.HEADER + 3


def test_the_opening_fits_one_small_packet():
    opening = (frames.OpenSession(bytes(32)), frames.StreamOpen(1, 80, bytes(STREAM_METADATA)))
    assert len(Packet(0, opening).encode()) <= SMALL_DATA


def test_what_does_not_fit_a_frame_is_the_callers_mistake():
    for frame in (
        frames.StreamOpen(1, 80, bytes(STREAM_METADATA + 1)),
        frames.OpenSession(bytes(31)),
        frames.SessionOpened(bytes(17)),
    ):
        with pytest.raises(UsageError):
            frame.encode()
