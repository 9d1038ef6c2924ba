"""What tests of whole nodes have in common: a clock that can be moved, a target that echoes, a look inside."""

import asyncio
import contextlib

from onionrelay.net.system import unix_now
from onionrelay.testing.overlay import until

PORT = 80
PATIENCE = 10


class Clock:
    """The wall clock of a whole overlay; `shift` seconds ahead of this machine's."""

    def __init__(self):
        self.shift = 0

    def __call__(self):
        return unix_now() + self.shift


async def echo(reader, writer):
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@contextlib.asynccontextmanager
async def target_of(overlay, handler=echo, **settings):
    """A node that serves PORT and can be reached."""
    async with overlay.node(**settings) as node:
        await node.start_server(handler, PORT)
        await node.wait_reachable(PATIENCE)
        yield node


async def ask(node, target, text=b"hello", **settings):
    """Says something to an echoing target over a stream of its own; returns the circuit it took."""
    async with asyncio.timeout(PATIENCE), node.connect(target.node_id, port=PORT, **settings) as stream:
        stream.write(text)
        stream.write_eof()
        assert await stream.read() == text
        return stream.circuit


def relay_ids(circuit):
    return [hop.relay_id for hop in circuit.hops if hop.relay_id]


def circuits_at(overlay):
    """How many circuits pass through or end at each relay that runs."""
    return {index: relay._driver.engine.circuits for index, relay in overlay.relays.items()}


async def no_circuit_left(overlay, *nodes):
    """Waits until no relay has a circuit, and none of `nodes` holds on to one."""
    await until(lambda: not any(circuits_at(overlay).values()), "the end of all circuits at relays")
    for relay in overlay.relays.values():
        assert not relay._driver._listeners
    for node in nodes:
        assert not node._driver.engine.circuits
        assert not node._driver._listeners
        assert not node._driver._opening


def attachments(node):
    """The attachments of a target that are up, by relay id."""
    attached = node._target._attachments
    return {str(each.final.relay_id): each for each in attached.attachments if each.is_up}
