"""`connect` in a network in this process: what passes, and how it ends when the way is cut."""

import asyncio

import pytest

from onionrelay.apps.connect_command import carry
from onionrelay.apps.stdio import ReaderGone
from onionrelay.base.errors import CircuitLost, NetworkError
from tests.apps.local_programs import BLOB, BREAK, ECHO, FLOOD, PATIENCE

in_the_network = pytest.mark.asyncio(loop_scope="module")


class Out:
    """What takes the place of standard output."""

    def __init__(self, *, is_gone=False):
        self.data = b""
        self.ended = asyncio.Event()
        self._is_gone = is_gone

    def write(self, data):
        self.data += data

    async def drain(self):
        if self._is_gone:
            raise ReaderGone

    def write_eof(self):
        self.ended.set()


def connected(served, port):
    return served.node.connect(served.target.node_id, port=port, isolation=object())


def standard_input(data=b"", *, ends):
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    if ends:
        reader.feed_eof()
    return reader


@in_the_network
async def test_bytes_pass_both_ways(served):
    out = Out()
    async with asyncio.timeout(PATIENCE), connected(served, ECHO) as stream:
        await carry(stream, standard_input(BLOB, ends=True), out)
    assert out.data == BLOB


@in_the_network
async def test_a_lost_circuit_ends_it_even_if_there_could_be_more_to_send(served):
    """Standard input stays open, as a terminal does; the answer has arrived whole before the circuit goes."""
    out = Out()
    async with asyncio.timeout(PATIENCE), connected(served, FLOOD) as stream:
        carrying = asyncio.ensure_future(carry(stream, standard_input(ends=False), out))
        await out.ended.wait()
        assert not carrying.done()
        stream.circuit.close()
        with pytest.raises(CircuitLost, match="the circuit is gone: closed at this end"):
            await carrying
    assert out.data == BLOB


@in_the_network
async def test_a_circuit_lost_in_the_middle_ends_it(served):
    out = Out()
    async with asyncio.timeout(PATIENCE), connected(served, ECHO) as stream:
        carrying = asyncio.ensure_future(carry(stream, standard_input(b"hello", ends=False), out))
        while out.data != b"hello":
            await asyncio.sleep(0)
        stream.circuit.close()
        with pytest.raises(CircuitLost):
            await carrying


@in_the_network
async def test_a_service_that_breaks_off_is_an_error_of_the_network(served):
    out = Out()
    async with asyncio.timeout(PATIENCE), connected(served, BREAK) as stream:
        with pytest.raises(NetworkError):
            await carry(stream, standard_input(ends=False), out)


@in_the_network
async def test_a_reader_that_has_left_is_none(served):
    async with asyncio.timeout(PATIENCE), connected(served, FLOOD) as stream:
        await carry(stream, standard_input(ends=False), Out(is_gone=True))
