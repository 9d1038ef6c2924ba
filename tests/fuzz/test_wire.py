"""Hostile bytes into every decoder: a value or MalformedMessage, never anything else, and no second encoding."""

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onionrelay.base import ids
from onionrelay.base.errors import DestroyReason, MalformedMessage
from onionrelay.base.limits import MAX_CONTROL_MESSAGE, SMALL_DATA
from onionrelay.wire import cell, control, relay
from tests.fuzz.strategies import VALUES
from tests.wire.samples import PARSERS, SAMPLES, Parser, encode, message_classes, recode

MUTATIONS = 20_000
EDGES = (b"\0", b"\1", b"\xff", b"\0\0", b"\0\1", b"\x7f\xff", b"\x80\0", b"\xff\xff", b"\xff\xff\xff\xff", bytes(8))


@pytest.fixture(autouse=True)
def remembered_points(monkeypatch):
    """The check of a curve point (35 us) remembers its answers: most mutations leave the keys alone."""
    real = ids.crypto_core_ed25519_is_valid_point
    monkeypatch.setattr(ids, "crypto_core_ed25519_is_valid_point", lru_cache(maxsize=4096)(real))


def mutations(valid: list[bytes], seed: str) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(MUTATIONS):
        body = rng.choice(valid)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            # Lengths, counts and codes stand mostly at the front, padding at the end.
            at = rng.choice((rng.randrange(len(body) + 1), rng.randrange(min(len(body), 16) + 1), len(body)))
            drop, put = rng.choice(((0, 0), (1, 0), (rng.randrange(40), 0), (1, 1), (1, 1), (1, 1), (2, 2), (0, 9)))
            new = rng.choice(EDGES) if put == 2 else rng.randbytes(put)
            body = body[:at] + new + body[at + drop :]
        yield body


def survive(parser: Parser) -> tuple[int, int]:
    accepted = refused = 0
    for body in mutations(parser.valid, parser.name):
        try:
            value = parser.parse(body)
        except MalformedMessage:
            refused += 1
            continue
        accepted += 1
        if parser.back and parser.back(value) != body:
            pytest.fail(f"{parser.name} accepts a second encoding: {body.hex()}")
    return accepted, refused


KINDS = [(kind, [encode(value) for value in values]) for kind, values in groupby(SAMPLES, type)]


@pytest.mark.parametrize(("kind", "valid"), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
def test_a_structure_decodes_or_is_malformed(kind, valid):
    def parse(body):
        value = kind.decode(memoryview(body))
        if recode(value, body) != body:
            pytest.fail(f"{kind.__name__} accepts a second encoding: {body.hex()}")
        return value

    accepted, refused = survive(Parser(kind.__name__, parse, valid))
    assert accepted
    assert refused


@pytest.mark.parametrize("parser", PARSERS, ids=[parser.name for parser in PARSERS])
def test_a_parser_accepts_or_is_malformed(parser):
    accepted, refused = survive(parser)
    assert accepted
    assert refused


def test_no_class_is_forgotten():
    assert message_classes() == {type(value) for value in SAMPLES} == set(VALUES)


@pytest.mark.parametrize("kind", VALUES, ids=[kind.__name__ for kind in VALUES])
def test_a_value_survives_the_wire(kind):
    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @given(VALUES[kind])
    def check(value):
        body = encode(value)
        assert kind.decode(body) == value
        assert kind.decode(memoryview(bytearray(body))) == value

    check()


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.binary(max_size=300))
def test_arbitrary_bytes(body):
    for kind in message_classes():
        try:
            value = kind.decode(body)
        except MalformedMessage:
            continue
        assert recode(value, body) == body


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 0xFFFF), st.binary(max_size=4000) | st.integers(60_000, MAX_CONTROL_MESSAGE).map(bytes))
def test_control_messages_survive_the_cells(kind, body):
    cells = control.fragment(cell.Cmd.DHT, kind, body)
    assembler = control.Assembler(MAX_CONTROL_MESSAGE)
    got = [assembler.feed(memoryview(cells)[at + 8 : at + 1112]) for at in range(0, len(cells), 1112)]
    assert got == [None] * (len(got) - 1) + [control.ControlMessage(kind, body)]


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 0xFFFF), st.binary(max_size=3 * SMALL_DATA) | st.integers(0, 65_536).map(bytes))
def test_relay_messages_survive_the_payloads(rid, data):
    assembler = relay.MessageAssembler()
    parts = relay.split_message(relay.RelayCmd.DHT_ANSWER, rid, data)
    got = [assembler.feed(relay.parse_payload(memoryview(part))) for part in parts]
    whole = relay.RelayPayload(relay.RelayCmd.DHT_ANSWER, more=False, rid=rid, data=data)
    assert got == [None] * (len(got) - 1) + [whole]


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 0xFFFF_FFFF), st.integers(1, 0xFFFF_FFFF)), min_size=1, max_size=300))
def test_credit_survives_the_cells(entries):
    cells = cell.pack_credit(entries)
    got = [
        entry for at in range(0, len(cells), 1112) for entry in cell.parse_credit(memoryview(cells)[at + 8 : at + 1112])
    ]
    assert got == entries


@given(st.sampled_from(DestroyReason))
def test_destroy_survives_the_cell(reason):
    assert cell.parse_destroy(cell.pack_destroy(1, reason)[8:]) is reason
