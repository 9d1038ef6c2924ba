"""Whatever standard input and output can be: pipes, sockets, files, terminals, /dev/null."""

import asyncio
import fcntl
import os
import pty
import select
import socket
from pathlib import Path

import pytest

from onionrelay.apps.stdio import FileReader, FileWriter, ReaderGone


async def read_all(fd):
    reader, data = FileReader(fd), b""
    while chunk := await reader.read(1000):
        data += chunk
    return data


async def test_a_pipe_waits_for_its_writer():
    source, sink = os.pipe()
    reading = asyncio.create_task(read_all(source))
    await asyncio.sleep(0)
    os.write(sink, b"one")
    os.write(sink, b"two")
    os.close(sink)
    assert await reading == b"onetwo"
    os.close(source)


async def test_files_and_dev_null(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    with path.open("rb") as file:
        assert await read_all(file.fileno()) == b"x" * 5000
    with Path(os.devnull).open("rb") as null:
        assert await read_all(null.fileno()) == b""
    with path.open("wb") as file, FileWriter(file.fileno()) as writer:
        writer.write(b"new")
        await writer.drain()
    assert path.read_bytes() == b"new"


async def test_a_full_pipe_makes_the_writer_wait_and_loses_nothing():
    source, sink = os.pipe()
    data = os.urandom(1_000_000)
    with FileWriter(sink) as writer:
        writer.write(data[:500_000])
        writer.write(data[500_000:])
        writing = asyncio.create_task(writer.drain())
        while select.select([], [sink], [], 0)[1]:
            await asyncio.sleep(0)
        assert not writing.done()
        reading = asyncio.create_task(read_all(source))
        await writing
        writer.write_eof()
        assert await reading == data
    os.close(sink)
    os.close(source)


async def test_after_the_end_the_descriptor_leads_nowhere():
    source, sink = os.pipe()
    with FileWriter(sink) as writer:
        writer.write_eof()
        assert os.read(source, 10) == b""
        os.write(sink, b"into nothing")
    os.close(sink)
    os.close(source)


async def test_a_socket_that_is_both_ends_one_direction():
    ours, theirs = socket.socketpair()
    output = os.dup(ours.fileno())
    with ours, theirs, FileWriter(output) as writer:
        writer.write(b"bye")
        await writer.drain()
        writer.write_eof()
        assert theirs.recv(10) == b"bye"
        assert theirs.recv(10) == b""
        theirs.sendall(b"still there")
        theirs.shutdown(socket.SHUT_WR)
        assert await read_all(ours.fileno()) == b"still there"
    os.close(output)


async def test_a_terminal_keeps_its_mode():
    leader, follower = pty.openpty()
    before = fcntl.fcntl(follower, fcntl.F_GETFL)
    with FileWriter(follower) as writer:
        assert fcntl.fcntl(follower, fcntl.F_GETFL) == before
        writer.write(b"shown")
        await writer.drain()
        assert os.read(leader, 10) == b"shown"
        os.write(leader, b"typed\n")
        assert await FileReader(follower).read(100) == b"typed\n"
    os.close(leader)
    os.close(follower)


def test_a_pipe_gets_its_mode_back():
    source, sink = os.pipe()
    with pytest.raises(ZeroDivisionError), FileWriter(sink):
        assert not os.get_blocking(sink)
        raise ZeroDivisionError
    assert os.get_blocking(sink)
    os.close(source)
    os.close(sink)


async def test_a_reader_that_leaves():
    source, sink = os.pipe()
    os.close(source)
    with FileWriter(sink) as writer:
        writer.write(b"x")
        with pytest.raises(ReaderGone):
            await writer.drain()
    os.close(sink)


async def test_a_cancelled_read_takes_nothing():
    source, sink = os.pipe()
    reading = asyncio.create_task(FileReader(source).read(10))
    await asyncio.sleep(0)
    reading.cancel()
    assert isinstance((await asyncio.gather(reading, return_exceptions=True))[0], asyncio.CancelledError)
    os.write(sink, b"kept")
    assert await FileReader(source).read(10) == b"kept"
    os.close(source)
    os.close(sink)
