"""Child processes, here small programs that print events, and their ends."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onionrelay.base.errors import TimedOut
from onionrelay.node.child import ChildDied, ChildProcess

READY = "print('noise'); print('[1]'); print('{\"event\": \"ready\", \"n\": 1}', flush=True)"
UNTIL_THE_LIFELINE_ENDS = "import sys; sys.stdin.read()"


@pytest.fixture
async def start(tmp_path):
    children = []

    async def start(*lines, **options):
        program = [sys.executable, "-c", "\n".join(lines)]
        child = await ChildProcess.start_program("child", program, tmp_path, **options)
        children.append(child)
        return child

    yield start
    for child in children:
        await child.stop(grace=0)


async def test_events_past_and_to_come(start):
    heard = []
    child = await start(
        READY, 'print(\'{"event": "later"}\', flush=True)', UNTIL_THE_LIFELINE_ENDS, on_event=heard.append
    )
    assert await child.event("later") == {"event": "later"}
    assert await child.event("ready") == {"event": "ready", "n": 1}
    assert heard == [{"event": "ready", "n": 1}, {"event": "later"}]
    assert child.is_running


async def test_a_child_that_dies_leaves_its_last_words(start):
    child = await start("import sys; sys.exit('this went wrong')")
    with pytest.raises(ChildDied, match="child ended with code 1 before it was ready: this went wrong"):
        await child.event("ready")
    with pytest.raises(ChildDied, match="this went wrong"):  # also when asked afterwards
        await child.event("ready")


async def test_an_error_event_is_among_the_last_words(start):
    child = await start('print(\'{"event": "error", "message": "port taken"}\'); raise SystemExit(2)')
    with pytest.raises(ChildDied, match="code 2 before it was ready: port taken"):
        await child.event("ready")


async def test_only_the_end_of_long_last_words_is_told(start):
    child = await start("import sys; sys.exit('x' * 100_000 + 'end')")
    with pytest.raises(ChildDied, match=r"xend$") as error:
        await child.event("ready")
    assert len(str(error.value)) < 3000


async def test_a_silent_child_times_out(start):
    child = await start(UNTIL_THE_LIFELINE_ENDS)
    with pytest.raises(TimedOut, match="waiting for child to be ready"):
        await child.event("ready", seconds=0.05)


async def test_stop_is_gentle_first(start):
    child = await start(
        "import signal, sys, time",
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))",
        READY,
        "time.sleep(60)",
    )
    await child.event("ready")
    await child.stop()
    assert await child.wait() == 7
    await child.stop()


async def test_stop_is_final(start):
    child = await start("import signal, time", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", READY, "time.sleep(60)")
    await child.event("ready")
    await child.stop(grace=0.1)
    assert await child.wait() == -signal.SIGKILL


async def test_a_cancelled_stop_kills_at_once(start):
    child = await start("import signal, time", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", READY, "time.sleep(60)")
    await child.event("ready")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await child.stop(grace=60)
    assert await child.wait() == -signal.SIGKILL


async def test_a_ctrl_c_at_the_terminal_is_not_for_the_child(start):
    child = await start(READY, UNTIL_THE_LIFELINE_ENDS)
    await child.event("ready")
    assert os.getpgid(child.pid) != os.getpgid(0)


PARENT = """
import asyncio, pathlib, sys
from onionrelay.node.child import ChildProcess

async def main():
    folder = pathlib.Path(sys.argv[1])
    child = await ChildProcess.start_program("c", [sys.executable, str(folder / "child.py")], folder)
    await child.event("ready")
    print(child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
CHILD = """
import time
from onionrelay.node.lifeline import hold_lifeline

hold_lifeline(0)
print('{"event": "ready"}', flush=True)
time.sleep(60)
"""


def test_a_child_ends_with_its_parent_even_by_sigkill(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, tmp_path / "parent.py", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        watched = os.pidfd_open(int(parent.stdout.readline()))
        assert select.select([watched], [], [], 0)[0] == []
        parent.kill()
    assert select.select([watched], [], [], 10)[0] == [watched]
    os.close(watched)
