"""A test network as a person uses it, from one terminal and another."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys

from onionrelay.node.testnet_state import STATE
from tests.e2e.test_demo import children, survivors

PROGRAM = [sys.executable, "-m", "onionrelay"]


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def command(*words):
    return run(*PROGRAM, "testnet", *words)


@contextlib.contextmanager
def up(folder):
    words = [*PROGRAM, "testnet", "up", "--relays", "8", "--dir", folder, "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_from_up_to_down(tmp_path):
    folder = tmp_path / "lab"
    with up(folder) as process:
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        assert ready["pid"] == process.pid
        pids = {relay["pid"] for relay in ready["relays"]} | {ready["target"]["pid"]}
        assert len(ready["relays"]) == 8
        assert len(pids) == 9
        assert set(children(folder)) == pids | {process.pid}
        assert sum(relay["seed"] for relay in ready["relays"]) == 3

        status = json.loads(command("status", "--dir", folder, "--json").stdout)
        assert status.items() >= {key: ready[key] for key in ("pid", "network", "node_id", "relays", "target")}.items()
        assert all(relay["alive"] for relay in status["relays"])

        second = command("up", "--dir", folder)
        assert second.returncode == 2
        assert f"process {process.pid}:" in second.stderr

        circuit, _, connect, socks, curl = ready["commands"]
        ran = run(*shlex.split(circuit), "--json")
        assert ran.returncode == 0, ran.stdout
        assert json.loads(ran.stdout)["target"] == ready["node_id"]
        ran = run("sh", "-c", connect)
        assert ran.stdout.endswith("hello from a node that accepts no connection\n"), ran.stderr
        assert ready["network"] in socks
        assert f"{ready['node_id']}.onionrelay/" in curl

        victim = ready["relays"][-1]["pid"]
        os.kill(victim, signal.SIGKILL)
        told = json.loads(process.stdout.readline())
        assert told == {"event": "ended", "pid": victim, "exit_code": -signal.SIGKILL}
        status = json.loads(command("status", "--dir", folder, "--json").stdout)
        assert [relay["alive"] for relay in status["relays"]] == [True] * 7 + [False]

        down = command("down", "--dir", folder)
        assert down.returncode == 0, down.stderr
        assert str(process.pid) in down.stdout
        assert children(folder) == []
        assert process.wait() == 0
    assert command("status", "--dir", folder).returncode == 3
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_killed_it_leaves_no_process_and_no_claim(tmp_path):
    folder = tmp_path / "lab"
    with up(folder) as process:
        json.loads(process.stdout.readline())
        process.kill()
    assert survivors(folder) == []
    assert (folder / STATE).exists()
    assert command("status", "--dir", folder).returncode == 3
    assert "no test network runs" in command("down", "--dir", folder).stdout
    assert not (folder / STATE).exists()
