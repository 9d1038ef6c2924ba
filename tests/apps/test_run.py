"""How commands end by signals: each in a process of its own."""

import gc
import os
import signal
import subprocess
import sys
import warnings

import pytest

from onionrelay.apps.run import run
from onionrelay.apps.settings import Settings

PROGRAM = """
import asyncio, sys
import click
from onionrelay.apps.cli import Application
from onionrelay.apps.run import lifeline_option, run
from onionrelay.apps.settings import shared_options
from onionrelay.base.errors import NoPath

@click.group(cls=Application)
@shared_options
def cli(): pass

async def work(how):
    try:
        print("ready", flush=True)
        if how == "fail": raise NoPath("there is none")
        if how == "hang": import time; time.sleep(60)
        await asyncio.sleep(60)
    finally:
        print("cleaned", flush=True)
        if how == "linger": await asyncio.sleep(60)

@cli.command()
@click.argument("how")
@click.option("--service", is_flag=True)
@click.option("--endless", is_flag=True)
@lifeline_option
@click.pass_obj
def do(settings, how, service, endless):
    run(settings, work(how), service=service, endless=endless)

cli.main()
"""


@pytest.fixture
def start():
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "do", *words],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.mark.parametrize(
    ("which", "options", "code"),
    [
        (signal.SIGINT, [], 130),
        (signal.SIGTERM, [], 130),
        (signal.SIGHUP, [], 130),
        (signal.SIGINT, ["--endless"], 130),
        (signal.SIGTERM, ["--endless"], 130),
        (signal.SIGINT, ["--service"], 130),
        (signal.SIGTERM, ["--service"], 0),
    ],
)
def test_a_signal_lets_the_command_clean_up(start, which, options, code):
    """Only to a person who interrupts what would have ended by itself there is something to say."""
    process = start("wait", *options)
    process.send_signal(which)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert out == b"cleaned\n"
    assert err == (b"onionrelay: interrupted\n" if (which, options) == (signal.SIGINT, []) else b"")


def test_a_second_signal_does_not_wait(start):
    process = start("linger")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"cleaned\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


def test_an_interrupt_before_the_command_begins_leaves_nothing_behind(monkeypatch):
    """A coroutine that nobody awaited would warn."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    async def work():
        """Never begins."""

    monkeypatch.setattr("onionrelay.apps.log.configure_logging", interrupted)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(KeyboardInterrupt):
        run(Settings(), work())
    gc.collect()
    assert not caught


def test_a_failing_command_ends_with_its_code(start):
    out, err = start("fail").communicate(timeout=10)
    assert out == b"cleaned\n"
    assert err == b"onionrelay: there is none\n"


def test_the_lifelines_end_is_a_sigterm(start):
    process = start("wait", "--service", "--lifeline", "0")
    process.stdin.close()
    assert process.wait(10) == 0
    assert process.stdout.read() == b"cleaned\n"


def test_not_even_a_hung_process_outlives_its_lifeline(start):
    process = start("hang", "--lifeline", "0")
    process.stdin.close()
    assert process.wait(10) == 1


def test_words_on_the_lifeline_mean_nothing(start):
    process = start("wait", "--lifeline", "0")
    os.write(process.stdin.fileno(), b"hello\n")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
