"""Runs the vectors of specs/vectors that concern bytes on the wire; their format is explained in specs/02-wire.md."""

import dataclasses
import json
from functools import partial
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from onionrelay.base import errors
from onionrelay.base.ids import Ed25519Point
from onionrelay.base.limits import SMALL_BODY
from onionrelay.wire import cell, control, directory, relay
from onionrelay.wire.address import Address, parse_listen
from onionrelay.wire.invite import Invite
from tests.wire.samples import message_classes, recode

VECTORS = Path(__file__).parents[2] / "specs" / "vectors"
AREAS = ("addresses", "attach", "cells", "control", "directory", "invites", "link", "payloads", "records")
FILES = {path.name: json.loads(path.read_text()) for area in AREAS for path in sorted(VECTORS.glob(f"{area}-*.json"))}
CASES = [(f"{name}: {case['name']}", case) for name, file in FILES.items() for case in file["cases"]]
BASES = {case["name"]: case for _, case in CASES if "bytes" in case}
CLASSES = {kind.__name__: kind for kind in message_classes()}


def unhex(text):
    """ "aa*3+bb" stands for aaaaaabb."""
    terms = (term.partition("*") for term in text.split("+"))
    return b"".join(bytes.fromhex(digits) * int(times or 1) for digits, _, times in terms)


def body_of(case):
    if "splice" in case:
        whole = body_of(BASES[case["base"]])
        at, drop, new = case["splice"]
        assert at + drop <= len(whole), "a splice lies inside its base"
        return whole[:at] + unhex(new) + whole[at + drop :]
    return b"".join(unhex(field[1]) for field in case["bytes"])


def plain(value):
    """A decoded value in the form of the JSON files."""
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, Ed25519Point):
        return value.raw.hex()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def unpack(expected):
    """Expected values with their hexadecimal shorthand written out."""
    if isinstance(expected, str) and set(expected) & set("*+"):
        return unhex(expected).hex()
    if isinstance(expected, list):
        return [unpack(item) for item in expected]
    if isinstance(expected, dict):
        return {name: unpack(item) for name, item in expected.items()}
    return expected


def pieces(body, size):
    return [memoryview(body)[at : at + size] for at in range(0, len(body), size)]


def control_messages(body, limit):
    assembler = control.Assembler(limit)
    found = (assembler.feed(piece) for piece in pieces(body, SMALL_BODY))
    return [(message.type, message.body) for message in found if message]


def control_cells(messages):
    cells = b"".join(control.fragment(cell.Cmd.DHT, *message) for message in messages)
    return b"".join(bytes(piece[8:]) for piece in pieces(cells, 1112))


def relay_messages(body):
    assembler = relay.MessageAssembler()
    found = (assembler.feed(relay.parse_payload(piece)) for piece in pieces(body, 1088))
    return [message for message in found if message]


def header(body):
    fields = cell.HEADER.unpack(body)
    cell.check_header(*fields)
    return fields


def one_payload(value):
    room = 1080 if len(value.data) <= 1080 else 16_352
    return relay.pack_payload(value.cmd, value.rid, value.data, more=value.more, room=room)


def split_all(messages):
    return b"".join(chain.from_iterable(relay.split_message(m.cmd, m.rid, m.data) for m in messages))


# structure: (decode, encode)
CODECS = {
    "credit body": (cell.parse_credit, lambda entries: cell.pack_credit(entries)[8:]),
    "destroy body": (cell.parse_destroy, lambda reason: cell.pack_destroy(1, reason)[8:]),
    "ping body": (cell.parse_ping, lambda token: cell.pack_ping(cell.Cmd.PING, token)[8:]),
    "build_ack body": (cell.parse_build_ack, lambda _: cell.pack_cell(1, cell.Cmd.BUILD_ACK)[8:]),
    "cell header": (header, lambda fields: cell.HEADER.pack(*fields)),
    "payload": (relay.parse_payload, one_payload),
    "small payloads": (relay_messages, split_all),
    **{
        f"relay {cmd}": (partial(directory.from_relay, cmd), lambda message: directory.to_relay(message)[1])
        for cmd in directory.RELAY_COMMANDS
    },
}


def codec(case):
    structure = case["structure"]
    settings = {**BASES.get(case.get("base"), {}), **case}
    if structure in CLASSES:
        return CLASSES[structure].decode, None
    if structure == "control bodies":
        return partial(control_messages, limit=settings["limit"]), control_cells
    if structure in ("control DIR", "control DHT"):
        cmd = cell.Cmd.DIR if structure.endswith("DIR") else cell.Cmd.DHT
        decode = partial(directory.from_control, cmd, settings["type"])
        return decode, lambda got: directory.to_control(got[1], got[0])[2]
    return CODECS[structure]


PARSE = {"address text": Address.parse, "listen text": parse_listen, "invite text": Invite.parse}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES])
def test_vector(case):
    if "text" in case:
        decode, source = PARSE[case["structure"]], case["text"]
    else:
        (decode, encode), source = codec(case), body_of(case)
    if "error" in case:
        with pytest.raises(errors.OnionRelayError) as caught:
            decode(source)
        assert type(caught.value).__name__ == case["error"]
        return
    value = decode(source)
    assert plain(value) == unpack(case["value"])
    if case["structure"] == "invite text":
        assert Invite.parse(str(value)) == value
    elif "text" not in case and not case.get("one_way"):
        assert (encode(value) if encode else recode(value, source)) == source


def test_every_area_and_class_has_vectors():
    assert {name.split("-")[0] for name in FILES} == set(AREAS)
    accepted = {case["structure"] for _, case in CASES if "value" in case}
    refused = {case["structure"] for _, case in CASES if "error" in case}
    assert set(CLASSES) <= accepted
    assert set(CLASSES) - refused == set()
