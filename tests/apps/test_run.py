"""How commands end by signals: each in a process of its own."""

import os
import signal
import subprocess
import sys

import pytest

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
@lifeline_option
@click.pass_obj
def do(settings, how, service):
    run(settings, work(how), service=service)

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
    ("which", "service", "code"),
    [
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, False, 130),
        (signal.SIGHUP, False, 130),
        (signal.SIGINT, True, 130),
        (signal.SIGTERM, True, 0),
    ],
)
def test_a_signal_lets_the_command_clean_up(start, which, service, code):
    process = start("wait", *(["--service"] if service else []))
    process.send_signal(which)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert out == b"cleaned\n"
    assert err == (b"onionrelay: interrupted\n" if code else b"")


def test_a_second_signal_does_not_wait(start):
    process = start("linger")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"cleaned\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


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
