"""The demo, and what is left of it when it is killed: nothing."""

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onionrelay.base.limits import DEMO_BYTES, DEMO_RELAYS
from onionrelay.node.localnet import PREFIX

GONE_WITHIN = 15.0  # a child that is still importing when its parent dies sees it when it has started


def demo(folder, *words):
    """The demo, with its temporary folder in `folder`, whose name is then in the command line of every child."""
    return subprocess.Popen(
        [sys.executable, "-m", "onionrelay", "demo", *words],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def children(folder):
    """The ids of the processes that work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def survivors(folder):
    """The processes that still work in `folder` when they have had the time to end."""
    deadline = time.monotonic() + GONE_WITHIN
    while (pids := children(folder)) and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(ProcessLookupError):
            watched = os.pidfd_open(pids[0])
            select.select([watched], [], [], left)
            os.close(watched)
    return pids


def test_json(tmp_path):
    with demo(tmp_path, "--json") as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert err == b""
    events = [json.loads(line) for line in out.splitlines()]
    by_name = {event["event"]: event for event in events}
    order = list(dict.fromkeys(event["event"] for event in events))
    assert order == ["ready", "relays", "target", "circuit", "progress", "done"]
    relays = by_name["relays"]["relays"]
    assert len(relays) == DEMO_RELAYS >= 8
    assert len({relay["pid"] for relay in relays} | {by_name["target"]["pid"], process.pid}) == DEMO_RELAYS + 2
    hops = by_name["circuit"]["hops"]
    assert [hop["role"] for hop in hops] == ["guard", "vanguard", "middle", "final", "target"]
    assert all(hop["median_ms"] > 0 for hop in hops)
    assert {hop["address"] for hop in hops[:-1]} <= {relay["address"] for relay in relays}
    done = by_name["done"]
    assert done["sha256_equal"] is True
    assert done["bytes"] == DEMO_BYTES == by_name["progress"]["bytes"]
    assert list(tmp_path.iterdir()) == []
    assert children(tmp_path) == []


def test_lines(tmp_path):
    with demo(tmp_path) as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    text = out.decode()
    assert "SHA-256 is equal" in text
    assert text.count(", process ") == DEMO_RELAYS
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("moment", "which"),
    [
        ("ready", signal.SIGKILL),
        ("relays", signal.SIGKILL),
        ("target", signal.SIGKILL),
        ("progress", signal.SIGKILL),
        ("relays", signal.SIGINT),
        ("target", signal.SIGTERM),
        ("circuit", signal.SIGINT),
        ("progress", signal.SIGTERM),
    ],
)
def test_ended_at_each_stage_it_leaves_nothing(tmp_path, moment, which):
    with demo(tmp_path, "--json") as process:
        while json.loads(process.stdout.readline())["event"] != moment:
            pass
        process.send_signal(which)
        process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if which == signal.SIGKILL else 130)
    assert survivors(tmp_path) == []
    if which != signal.SIGKILL:
        assert list(tmp_path.glob(f"{PREFIX}*")) == []


@pytest.mark.parametrize("seed", range(int(os.environ.get("ONIONRELAY_KILLS", "4"))))
def test_ended_at_any_moment_it_leaves_nothing(tmp_path, seed):
    """ONIONRELAY_KILLS=100 tries more moments."""
    chance = random.Random(seed)
    with demo(tmp_path, "--json") as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.0, 3.0))
        process.send_signal(chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
        process.communicate(timeout=30)
    assert survivors(tmp_path) == []
