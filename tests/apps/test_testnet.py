"""`testnet` finds what runs, and never mistakes another process for it. A network that really runs: tests/e2e."""

import json
import os
import signal
import subprocess
import sys

import pytest

from onionrelay.apps import testnet_command
from onionrelay.base.errors import ConfigError
from onionrelay.node import testnet_state
from onionrelay.node.testnet_state import (
    STATE,
    NetworkState,
    ProcessMark,
    RunningRelay,
    StateFile,
    beginning,
    default_folder,
)

IGNORES_SIGTERM = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True); sys.stdin.read()"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "lab"


@pytest.fixture
def other():
    """A process that runs until somebody ends it."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def ended() -> ProcessMark:
    """The mark of a process that was."""
    with subprocess.Popen(["sleep", "600"]) as process:
        mark = ProcessMark.of(process.pid)
        process.kill()
    return mark


def reused(process) -> ProcessMark:
    """The mark of a process that was, whose id another one has now."""
    return ProcessMark(process.pid, ended().began + "0")


def keep(folder, mark, **more):
    StateFile(folder).write(NetworkState(mark, **more))
    return (folder / STATE).read_bytes()


# The processes


def test_a_process_is_known_by_its_beginning(other):
    mark = ProcessMark.of(other.pid)
    assert mark.is_running
    assert mark == ProcessMark.of(other.pid)
    assert not reused(other).is_running
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert not mark.is_running
    other.wait()
    assert not mark.is_running
    assert not ProcessMark.of(other.pid).is_running


def test_the_name_of_a_program_cannot_look_like_its_beginning(tmp_path, other):
    program = tmp_path / "a) Z 1 ("
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE) as odd:
        assert int(beginning(odd.pid)) >= int(beginning(other.pid))
        odd.kill()


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("echo 'S+   Tue Nov 24 13:00:00 2026'", "Tue Nov 24 13:00:00 2026"),
        ("echo 'Z    Tue Nov 24 13:00:00 2026'", None),
        ("exit 1", None),
    ],
)
def test_without_proc_ps_is_asked(tmp_path, monkeypatch, says, expected):
    ps = tmp_path / "ps"
    ps.write_text(f"#!/bin/sh\n{says}\n")
    ps.chmod(0o700)
    monkeypatch.setattr(testnet_state, "PS", str(ps))
    assert testnet_state._beginning_by_ps(1) == expected


# The state


def test_a_claim_is_seen_and_goes_however_it_ends(folder):
    def fail():
        with StateFile(folder).claim() as state:
            assert StateFile(folder).running() == state == NetworkState(ProcessMark.of(os.getpid()))
            assert (folder / STATE).stat().st_mode & 0o777 == 0o600
            with pytest.raises(ConfigError, match=f"process {os.getpid()}:"), StateFile(folder).claim():
                pass
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert StateFile(folder).running() is None
    assert not (folder / STATE).exists()


def test_what_a_killed_network_left_is_no_claim(folder, other):
    for mark in (ended(), reused(other)):
        keep(folder, mark)
        with StateFile(folder).claim() as state:
            assert state.process.pid == os.getpid()


def test_the_default_folder_is_the_persons_own(tmp_path, monkeypatch, run):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_folder().is_relative_to(tmp_path)
    assert str(default_folder()) in run("testnet", "status").sentence


# The commands


def test_nothing_runs(run, folder):
    status = run("testnet", "status", "--dir", folder)
    assert status.code == 3
    assert str(folder) in status.sentence
    first, second = map(json.loads, run("testnet", "status", "--dir", folder, "--json").out.splitlines())
    assert first == {"event": "status", "running": False, "dir": str(folder)}
    assert second["exit_code"] == 3
    down = run("testnet", "down", "--dir", folder)
    assert (down.code, down.err) == (0, "")
    assert down.out == f"no test network runs in {folder}\n"
    assert not folder.exists()


def test_a_second_network_in_one_folder_is_refused(run, folder, other):
    kept = keep(folder, ProcessMark.of(other.pid))
    ran = run("testnet", "up", "--dir", folder)
    assert ran.code == 2
    assert f"process {other.pid}:" in ran.sentence
    assert f"testnet down --dir {folder}" in ran.sentence
    assert (folder / STATE).read_bytes() == kept


def test_another_process_with_the_recorded_id_is_left_alone(run, folder, other):
    keep(folder, reused(other))
    assert run("testnet", "status", "--dir", folder).code == 3
    assert (folder / STATE).exists()
    down = run("testnet", "down", "--dir", folder, "--json")
    assert json.loads(down.out) == {"event": "down", "was_running": False, "pid": None}
    assert other.poll() is None
    assert not (folder / STATE).exists()


def test_status_names_the_processes_and_which_have_ended(run, folder, other):
    mark, gone = ProcessMark.of(other.pid), ended()
    relays = (RunningRelay("onrr1a", "127.0.0.1:1", True, mark), RunningRelay("onrr1b", "127.0.0.1:2", False, gone))
    keep(folder, mark, network="/n.toml", node_id="onr1", target=mark, relays=relays)
    lines = run("testnet", "status", "--dir", folder)
    assert lines.code == 0
    assert lines.out.splitlines()[1:] == [
        f"  target onr1, process {other.pid}",
        f"  relay 127.0.0.1:1, process {other.pid}, a seed",
        f"  relay 127.0.0.1:2, process {gone.pid}, which has ended",
    ]
    told = json.loads(run("testnet", "status", "--dir", folder, "--json").out)
    assert (told["running"], told["ready"], told["pid"], told["node_id"]) == (True, True, other.pid, "onr1")
    assert [(relay["address"], relay["alive"]) for relay in told["relays"]] == [
        ("127.0.0.1:1", True),
        ("127.0.0.1:2", False),
    ]


def test_a_network_that_starts_is_running_and_can_be_ended(run, folder, other):
    keep(folder, ProcessMark.of(other.pid))
    assert "it is starting" in run("testnet", "status", "--dir", folder).out
    down = run("testnet", "down", "--dir", folder)
    assert down.code == 0
    assert str(other.pid) in down.out
    assert other.wait() == -signal.SIGTERM
    assert not (folder / STATE).exists()


def test_what_does_not_end_is_named(run, folder, monkeypatch):
    monkeypatch.setattr(testnet_command, "TESTNET_STOP", 0.1)
    command = [sys.executable, "-c", IGNORES_SIGTERM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stubborn:
        stubborn.stdout.readline()
        kept = keep(folder, ProcessMark.of(stubborn.pid))
        ran = run("testnet", "down", "--dir", folder)
        stubborn.kill()
    assert ran.code == 8
    assert str(stubborn.pid) in ran.sentence
    assert (folder / STATE).read_bytes() == kept


@pytest.mark.parametrize("words", ["status", "down", "up"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"process": {"pid": "1", "began": "2"}}'])
def test_a_state_that_is_none_is_neither_used_nor_removed(run, folder, words, damage):
    folder.mkdir(mode=0o700)
    (folder / STATE).write_bytes(damage)
    (folder / STATE).chmod(0o600)
    ran = run("testnet", words, "--dir", folder)
    assert ran.code == 2
    assert str(folder / STATE) in ran.sentence
    assert (folder / STATE).read_bytes() == damage


def test_a_state_that_others_could_have_written_ends_nothing(run, folder, other):
    keep(folder, ProcessMark.of(other.pid))
    (folder / STATE).chmod(0o666)
    assert run("testnet", "down", "--dir", folder).code == 3
    assert other.poll() is None


@pytest.mark.parametrize("relays", ["4", "51", "many"])
def test_how_many_relays_there_can_be(run, folder, relays):
    assert run("testnet", "up", "--relays", relays, "--dir", folder).code == 2
    assert not folder.exists()
