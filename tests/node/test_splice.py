"""Two pairs of streams joined."""

import asyncio

import pytest

from onionrelay.node.splice import CHUNK, copy, splice
from tests.node.memory_circuit import in_virtual_time


class Writer:
    """Remembers what it is given, and can be told to break."""

    def __init__(self, drain_error=None, eof_error=None):
        self.data = bytearray()
        self.ended = False
        self.drain_error, self.eof_error = drain_error, eof_error
        self.longest = 0

    def write(self, data):
        assert not self.ended
        self.longest = max(self.longest, len(data))
        self.data += data

    async def drain(self):
        await asyncio.sleep(0)
        if self.drain_error:
            raise self.drain_error

    def write_eof(self):
        if self.eof_error:
            raise self.eof_error
        self.ended = True


def reader(*chunks, end=True):
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    if end:
        stream.feed_eof()
    return stream


@in_virtual_time
async def test_all_bytes_go_over_and_then_the_end():
    writer = Writer()
    assert await copy(reader(b"abc", b"def"), writer) == 6
    assert writer.data == b"abcdef"
    assert writer.ended


@in_virtual_time
async def test_no_more_than_a_chunk_is_on_the_way():
    writer = Writer()
    assert await copy(reader(bytes(3 * CHUNK + 1)), writer) == 3 * CHUNK + 1
    assert writer.longest == CHUNK


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("closed"), ConnectionResetError("reset")])
def test_an_end_that_nobody_is_left_to_hear_is_no_error(error):
    @in_virtual_time
    async def run():
        assert await copy(reader(b"x"), Writer(eof_error=error)) == 1

    run()


@in_virtual_time
async def test_one_direction_may_end_long_before_the_other():
    late, here, there = reader(end=False), Writer(), Writer()
    joined = asyncio.create_task(splice((reader(b"question"), here), (late, there)))
    await asyncio.sleep(1)
    assert there.data == b"question"
    assert there.ended
    assert not here.ended
    late.feed_data(b"a long answer")
    late.feed_eof()
    assert await joined == (8, 13)
    assert here.data == b"a long answer"


@in_virtual_time
async def test_an_error_ends_both_directions_and_comes_as_it_was():
    silent = reader(end=False)
    with pytest.raises(ConnectionResetError, match="reset"):
        await splice((reader(b"x"), Writer()), (silent, Writer(drain_error=ConnectionResetError("reset"))))
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_cancelling_leaves_no_task():
    joined = asyncio.create_task(splice((reader(end=False), Writer()), (reader(end=False), Writer())))
    await asyncio.sleep(1)
    joined.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joined
    assert asyncio.all_tasks() == {asyncio.current_task()}
