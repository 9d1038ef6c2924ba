"""`onionrelay ping`: what is wrong before anything runs, what it makes of the times, and what it shows."""

import asyncio
import io
import json

import pytest
from rich.console import Console

from onionrelay.apps import ping_report
from onionrelay.apps.ping_command import measure
from onionrelay.apps.ping_report import COLUMNS, EchoTimes, echo_lines, round_line
from onionrelay.apps.render import EchoScreen
from onionrelay.apps.settings import Settings
from onionrelay.base.errors import CircuitLost
from onionrelay.node import circuit as circuit_module
from onionrelay.node.circuit import HopInfo
from onionrelay.testing.overlay import until
from tests.apps.test_cli import NODE

HOPS = (HopInfo(1, "guard", "onrr1a", "192.0.2.1:443"), HopInfo(2, "target"))
in_the_network = pytest.mark.asyncio(loop_scope="module")


# The command


@pytest.mark.parametrize(
    "words",
    [
        "ping --network {network}",
        "ping nonsense --network {network}",
        "ping {node}:80 --network {network}",
        "ping {node} more --network {network}",
        "ping {node} -c 0 --network {network}",
        "ping {node} -c many --network {network}",
        "ping {node} --interval 0 --network {network}",
        "ping {node} --interval -1 --network {network}",
        "ping {node} --hops 2 --network {network}",
    ],
)
def test_usage_errors_end_with_2(run, network, words):
    ran = run(*words.format(network=network, node=NODE).split(" "))
    assert ran.code == 2
    assert ran.sentence
    assert ran.out == ""


def test_without_a_network_it_says_how_to_get_one(run):
    ran = run("ping", NODE)
    assert ran.code == 3
    assert "onionrelay network join" in ran.sentence


def test_help_teaches(run):
    shown = run("ping", "--help").out
    for word in ("Example:", "-c 20", "--interval", "median", "p90"):
        assert word in shown


# The times


def times_of(*rounds):
    times = EchoTimes(HOPS)
    for each in rounds:
        times.add_round(each)
    return times


def test_least_median_and_p90():
    times = times_of(*((at / 1000, at / 100) for at in (9, 1, 5, 3, 7, 2, 8, 4, 6, 10)))
    guard, target = times.fields()["hops"]
    assert times.rounds == 10
    assert (guard["min_ms"], guard["median_ms"], guard["p90_ms"], guard["samples"], guard["lost"]) == (1, 5.5, 9, 10, 0)
    assert (target["min_ms"], target["median_ms"], target["p90_ms"]) == (10, 55, 90)
    assert (guard["role"], guard["address"], guard["relay_id"]) == ("guard", "192.0.2.1:443", "onrr1a")
    assert (target["role"], target["address"], target["relay_id"]) == ("target", None, None)


def test_one_echo_is_all_three():
    (guard, _) = times_of((0.004, 0.005)).fields()["hops"]
    assert guard["min_ms"] == guard["median_ms"] == guard["p90_ms"] == 4


def test_what_does_not_come_back_is_lost_and_no_time():
    times = times_of((0.001, 0.002))
    assert times.add_round((0.003, None)) == {
        "round": 2,
        "hops": [{"position": 1, "ms": 3.0}, {"position": 2, "ms": None}],
    }
    _, target = times.fields()["hops"]
    assert (target["median_ms"], target["samples"], target["lost"]) == (2, 1, 1)
    (_, never) = times_of((0.001, None)).fields()["hops"]
    assert (never["min_ms"], never["median_ms"], never["p90_ms"], never["lost"]) == (None, None, None, 1)


def test_what_is_kept_has_a_limit(monkeypatch):
    monkeypatch.setattr(ping_report, "PING_KEPT", 3)
    guard, _ = times_of(*((at / 1000, 0) for at in range(1, 11))).fields()["hops"]
    assert (guard["min_ms"], guard["median_ms"], guard["samples"]) == (8, 9, 3)


def test_lines_for_people():
    times = times_of((0.001, 0.002))
    assert round_line(times.add_round((0.003, None))) == "2:  1: 3.00 ms  2: -"
    first, guard, target = echo_lines(times.fields())
    assert first.split() == list(COLUMNS)
    assert guard.split() == ["1", "guard", "192.0.2.1:443", "1.00", "ms", "2.00", "ms", "3.00", "ms", "0"]
    assert target.startswith("2    target  only its node id is known  2.00 ms  2.00 ms  2.00 ms  1")


def test_a_terminal_shows_the_table_as_it_grows():
    shown = io.StringIO()
    with EchoScreen(Console(file=shown, width=120, force_terminal=True, color_system=None)) as show:
        for rounds in (1, 2):
            show(times_of(*[(0.001, None)] * rounds).fields())
    text = shown.getvalue()
    for word in (*COLUMNS, "192.0.2.1:443", "1.00 ms", "1 round", "2 rounds", "only its node id is known"):
        assert word in text


# In a network


@in_the_network
async def test_rounds_and_their_statistics(served, capsys):
    async with served.node.circuit(served.target.node_id) as circuit:
        began = asyncio.get_running_loop().time()
        await measure(Settings(json=True), served.target.node_id, circuit, 3, 0.1)
        assert asyncio.get_running_loop().time() - began >= 0.2
    ready, *rounds, statistics = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert ready["event"] == "ready"
    assert [hop["role"] for hop in ready["hops"]] == ["guard", "vanguard", "middle", "final", "target"]
    assert [(each["event"], each["round"], len(each["hops"])) for each in rounds] == [
        ("echoes", at, 5) for at in (1, 2, 3)
    ]
    assert (statistics["event"], statistics["rounds"]) == ("statistics", 3)
    for at, hop in enumerate(statistics["hops"]):
        seen = sorted(each["hops"][at]["ms"] for each in rounds)
        assert [hop["min_ms"], hop["median_ms"], hop["p90_ms"]] == seen
        assert hop["relay_id"] == ready["hops"][at]["relay_id"]


class Told:
    """All that is printed, as it comes."""

    def __init__(self, capsys):
        self._capsys = capsys
        self.text = ""

    async def until(self, word):
        def found():
            self.text += self._capsys.readouterr().out
            return word in self.text

        await until(found, word)


@in_the_network
async def test_a_lost_circuit_ends_it_after_the_statistics(served, capsys):
    told = Told(capsys)
    async with served.node.circuit(served.target.node_id) as circuit:
        measuring = asyncio.ensure_future(measure(Settings(), served.target.node_id, circuit, None, 0.1))
        await told.until("2:  1: ")
        circuit.close()
        with pytest.raises(CircuitLost):
            await measuring
        await told.until("only its node id is known")
    summary, *lines = told.text.splitlines()
    assert summary.startswith("4 relays, built in ")
    assert lines[0].startswith("1:  1: ")
    assert lines[-6].split() == list(COLUMNS)


@in_the_network
async def test_an_echo_that_is_late_is_lost_and_the_next_one_is_tried(served, capsys, monkeypatch):
    told = Told(capsys)
    async with served.node.circuit(served.target.node_id) as circuit:
        measuring = asyncio.ensure_future(measure(Settings(json=True), served.target.node_id, circuit, 6, 0.1))
        await told.until('"ready"')
        monkeypatch.setattr(circuit_module, "ECHO_TIMEOUT", 0)
        await measuring
        await told.until('"statistics"')
    statistics = json.loads(told.text.splitlines()[-1])
    for hop in statistics["hops"]:
        assert hop["samples"] + hop["lost"] == 6
        assert hop["lost"] > 1
