"""The vectors of specs/06-sessions.md about what an end does with well-formed packets."""

import json

import pytest

from onionrelay.base.errors import MalformedMessage, ProtocolViolation
from onionrelay.core.session import events
from onionrelay.core.session.session import Session
from onionrelay.wire.frames import CloseCode, RefusalReason, StreamCode
from tests.seeded import SeededRng
from tests.wire.test_vectors import VECTORS, unhex

DO = {
    "opens": lambda session, port: session.open_stream(port),
    "accepts": lambda session, stream: session.accept(stream),
    "refuses": lambda session, stream: session.refuse(stream, RefusalReason.NO_SUCH_PORT),
    "finishes": lambda session, stream: session.finish(stream),
    "resets": lambda session, stream: session.reset(stream, StreamCode.CANCELLED),
    "stops": lambda session, stream: session.stop(stream, StreamCode.CANCELLED),
    "pings": lambda session, _: session.ping(),
    "closes": lambda session, code: session.close(CloseCode(code)),
}


def cases(name):
    return [pytest.param(case, id=case["name"]) for case in json.loads((VECTORS / name).read_text())["cases"]]


def packet(fields):
    return b"".join(unhex(digits) for _, digits in fields)


def drain(session):
    return list(iter(lambda: session.next_packet(large_room=True), None))


def walk(session, steps):
    for step in steps:
        ((what, value),) = step.items()
        if what == "receives":
            session.on_packet(packet(value))
        else:
            DO[what](session, value)
        drain(session)


def session_of(role):
    return Session(is_opener=role == "client", rng=SeededRng(0))


@pytest.mark.parametrize("case", cases("sessions-violations.json"))
def test_violation(case):
    session = session_of(case["role"])
    *before, last = case["steps"]
    walk(session, before)
    with pytest.raises(ProtocolViolation) as caught:
        walk(session, [last])
    assert type(caught.value).__name__ == case["error"]
    assert not isinstance(caught.value, MalformedMessage)


@pytest.mark.parametrize("case", cases("sessions-crossings.json"))
def test_crossing(case):
    walk(session_of(case["role"]), case["steps"])


class FixedRng(SeededRng):
    """The nonce and the session id of sessions-conversation.json."""

    def token(self, size):
        return {32: b"\xa0" * 32, 16: b"\xb0" * 16}[size]


class Conversation:
    def __init__(self):
        self.ends = {role: Session(is_opener=role == "client", rng=FixedRng(0)) for role in ("client", "target")}

    def check(self, sender, expected):
        receiver = "target" if sender == "client" else "client"
        sent = self.ends[sender].next_packet(large_room=True)
        self.ends[sender].take_events()
        assert sent == packet(expected)
        return self.ends[receiver].on_packet(sent)


def packets_of(name):
    (found,) = (param.values[0] for param in cases("sessions-conversation.json") if param.values[0]["name"] == name)
    return [(step["from"], step["bytes"]) for step in found["packets"]]


def test_conversation_request_and_answer():
    talk = Conversation()
    client, target = talk.ends["client"], talk.ends["target"]
    opening, opened, answer, close = packets_of("request and answer")
    stream = client.open_stream(80)
    client.write(stream, b"qqqqq")
    client.finish(stream)
    assert talk.check(*opening)[-2:] == [events.DataArrived(1, b"qqqqq"), events.StreamFinished(1)]
    assert talk.check(*opened) == [events.SessionOpened(b"\xb0" * 16)]
    target.accept(1)
    target.write(1, b"aaaaaaa")
    target.finish(1)
    assert talk.check(*answer) == [
        events.StreamAccepted(1),
        events.DataArrived(1, b"aaaaaaa"),
        events.StreamFinished(1),
    ]
    client.close(CloseCode.FINISHED)
    assert talk.check(*close) == [events.SessionClosed(CloseCode.FINISHED)]


def test_conversation_refusal():
    talk = Conversation()
    client, target = talk.ends["client"], talk.ends["target"]
    opening, refused, reset = packets_of("a stream refused")
    client.write(client.open_stream(81), b"qqqqq")
    talk.check(*opening)
    target.refuse(1, RefusalReason.NO_SUCH_PORT)
    assert talk.check(*refused)[-1] == events.StreamRefused(1, RefusalReason.NO_SUCH_PORT)
    assert talk.check(*reset) == []
    assert client.stream_count == 0
    target.consumed(1, 5)
    assert target.stream_count == 0


def test_conversation_cancelled():
    talk = Conversation()
    client, target = talk.ends["client"], talk.ends["target"]
    opening, opened, cancel, late = packets_of("a stream cancelled")
    client.open_stream(80)
    talk.check(*opening)
    talk.check(*opened)
    client.reset(1, StreamCode.CANCELLED)
    client.stop(1, StreamCode.CANCELLED)
    assert talk.check(*cancel) == [
        events.StreamReset(1, StreamCode.CANCELLED),
        events.StreamStopped(1, StreamCode.CANCELLED, 0),
    ]
    target.accept(1)
    assert talk.check(*late) == [events.StreamAccepted(1)]
    assert client.stream_count == target.stream_count == 0
