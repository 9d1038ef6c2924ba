"""The demo's events, as they are printed for a script, a file and a terminal."""

import io

import pytest
from rich.console import Console

from onionrelay.apps.circuit_report import circuit_lines, hop_cells, ping_line
from onionrelay.apps.demo import documented
from onionrelay.apps.demo_lines import demo_lines
from onionrelay.apps.render import DemoScreen, print_circuit

RELAY = {"event": "relay", "relay_id": "onrr1", "address": "127.0.0.1:9001", "pid": 7, "seed": True}
HOPS = [
    {
        "position": n,
        "role": role,
        "address": address,
        "relay_id": "x",
        "median_ms": 1.5 * n,
        "added_ms": 1.5,
        "error_ms": 0.1,
    }
    for n, (role, address) in enumerate(
        [
            ("guard", "192.0.2.1:1"),
            ("vanguard", "192.0.2.2:1"),
            ("middle", "192.0.2.3:1"),
            ("final", "192.0.2.4:1"),
            ("target", None),
        ],
        1,
    )
]
CIRCUIT = {"event": "circuit", "target": "onr1", "build_ms": 12.34, "anonymity": "testnet", "hops": HOPS}
EVENTS = [
    {"event": "ready", "relays": 8, "bytes": 20_000_000},
    RELAY,
    {"event": "relays", "folder": "folder", "relays": [RELAY]},
    {"event": "target", "node_id": "onr1", "pid": 8, "port": 80},
    {"event": "hop", **{key: HOPS[0][key] for key in ("position", "role", "address", "relay_id")}},
    CIRCUIT,
    {"event": "progress", "bytes": 10_000_000, "total": 20_000_000},
    {"event": "done", "sha256_equal": True, "sha256": "00", "bytes": 20_000_000, "seconds": 0.5},
]


def test_a_script_gets_the_documented_events():
    seen = []
    show = documented(seen.append)
    for event in EVENTS:
        show(event)
    assert [event["event"] for event in seen] == ["ready", "relays", "target", "circuit", "progress", "done"]


def test_lines():
    lines = [line for event in EVENTS for line in demo_lines(event)]
    text = "\n".join(lines)
    assert "127.0.0.1:9001, process 7, a seed" in text
    assert "protects nobody" in text
    assert "onr1" in text
    assert lines[-1] == "20.0 MB through the circuit in 0.50 s (40 MB/s): SHA-256 is equal"
    assert "DIFFERS" in demo_lines({**EVENTS[-1], "sha256_equal": False})[0]


def test_a_circuit_in_lines():
    first, header, *rows = circuit_lines(CIRCUIT)
    assert first == "4 relays, built in 12.3 ms, anonymity testnet"
    assert header.split() == ["hop", "role", "address", "adds", "round", "trip"]
    assert len(rows) == 5
    assert rows[1].split() == ["2", "vanguard", "192.0.2.2:1", "+1.50", "±0.10", "ms", "3.00", "ms"]
    assert hop_cells({"position": 1, "role": "guard", "address": "a"})[3:] == ("", "")
    assert ping_line(HOPS[:2]) == "1: 1.50 ms  2: 3.00 ms"


def screen(width=100, *, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False)


def test_a_terminal_shows_every_hop_and_the_end():
    console = screen(terminal=True)
    with DemoScreen(console) as show:
        for event in EVENTS:
            show(event)
    text = console.file.getvalue()
    for part in ("192.0.2.1:1", "192.0.2.4:1", "anonymity testnet", "protects nobody", "SHA-256 is equal"):
        assert part in text


def test_a_table_of_a_circuit():
    console = screen(terminal=False)
    print_circuit(CIRCUIT, console)
    text = console.file.getvalue()
    for hop in HOPS:
        assert hop["role"] in text
    assert "built in 12.3 ms" in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_cuts_no_time(width):
    """What does not fit is folded, and only addresses are."""
    hops = [{**hop, "added_ms": 123.45, "error_ms": 10.5, "median_ms": 1234.56} for hop in HOPS]
    hops[0]["address"] = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535"
    console = screen(width, terminal=False)
    print_circuit({**CIRCUIT, "hops": hops}, console)
    text = console.file.getvalue()
    assert text.count("+123.45 ±10.50 ms") == text.count("1234.56 ms") == 5
    assert all(hop["role"] in text for hop in hops)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
