import pytest

from onionrelay.base.errors import DestroyReason, MalformedMessage, UsageError
from onionrelay.base.limits import LARGE_BODY, LARGE_CELL, SMALL_BODY, SMALL_CELL
from onionrelay.wire import cell
from onionrelay.wire.cell import Cmd

COMMANDS = {name: value for name, value in vars(Cmd).items() if name.isupper()}


def test_every_command_has_a_size_and_a_place():
    assert sorted(COMMANDS.values()) == list(range(16))
    assert len(cell.CELL_SIZE) == 256
    for cmd in range(256):
        size = LARGE_CELL if cmd == Cmd.RELAY_BULK else SMALL_CELL if cmd < 16 else 0
        assert cell.CELL_SIZE[cmd] == size
    on_circuits = set(COMMANDS.values()) - cell.LINK_COMMANDS
    assert on_circuits == {Cmd.RELAY, Cmd.BUILD, Cmd.BUILT, Cmd.BUILD_ACK, Cmd.DESTROY, Cmd.RELAY_BULK}


def test_a_small_cell():
    raw = cell.pack_cell(0x80000001, Cmd.BUILD, b"body", gen=1)
    assert len(raw) == SMALL_CELL
    assert raw[:12] == bytes.fromhex("8000000104010000") + b"body"
    assert not any(raw[12:])
    assert cell.HEADER.unpack_from(raw) == (0x80000001, Cmd.BUILD, 1, 0)


def test_a_large_cell_is_full():
    assert len(cell.pack_cell(1, Cmd.RELAY_BULK, bytes(LARGE_BODY))) == LARGE_CELL
    for size in (0, SMALL_BODY, LARGE_BODY - 1, LARGE_BODY + 1):
        with pytest.raises(UsageError):
            cell.pack_cell(1, Cmd.RELAY_BULK, bytes(size))


@pytest.mark.parametrize(("cmd", "size"), [(Cmd.RELAY, SMALL_BODY + 1), (16, 0), (255, 1)])
def test_what_fits_no_cell(cmd, size):
    with pytest.raises(UsageError):
        cell.pack_cell(1, cmd, bytes(size))


@pytest.mark.parametrize("cmd", range(256))
def test_headers(cmd):
    """Every command, on a circuit and off, with every reserved field."""
    for circ_id in (0, 1, 0xFFFF_FFFF):
        for gen in (0, 1, 255):
            for zero in (0, 1, 0x8000):
                fine = (
                    cmd < 16
                    and not zero
                    and (not gen or cmd == Cmd.BUILD)
                    and (circ_id == 0) == (cmd in cell.LINK_COMMANDS)
                )
                if fine:
                    cell.check_header(circ_id, cmd, gen, zero)
                else:
                    with pytest.raises(MalformedMessage):
                        cell.check_header(circ_id, cmd, gen, zero)


def test_credit_spills_into_further_cells():
    entries = [(n, 2 * n) for n in range(1, 140)]
    raw = cell.pack_credit(entries)
    assert len(raw) == 2 * SMALL_CELL
    assert cell.parse_credit(memoryview(raw)[8:SMALL_CELL]) == entries[:138]
    assert cell.parse_credit(memoryview(raw)[SMALL_CELL + 8 :]) == entries[138:]
    assert cell.pack_credit([]) == b""


@pytest.mark.parametrize("entry", [(0, 5), (5, 0), (0, 0)])
def test_credit_without_circuit_or_amount_is_not_sent(entry):
    with pytest.raises(UsageError):
        cell.pack_credit([(1, 1), entry])


def test_a_reason_of_a_later_version_reads_as_none():
    for code in range(256):
        reason = cell.parse_destroy(bytes([code]) + bytes(SMALL_BODY - 1))
        assert reason == (code if code <= max(DestroyReason) else DestroyReason.NONE)


def test_ping_and_pong_carry_the_same_token():
    ping, pong = cell.pack_ping(Cmd.PING, 7), cell.pack_ping(Cmd.PONG, 7)
    assert (ping[4], pong[4]) == (9, 10)
    assert cell.parse_ping(ping[8:]) == cell.parse_ping(pong[8:]) == 7
