"""What tests of whole nodes have in common: a clock that can be moved, a target that echoes, a look inside."""

import asyncio
import contextlib

from onionrelay.core.attach.target import Publish
from onionrelay.net.system import unix_now
from onionrelay.testing.overlay import until

PORT = 80
PATIENCE = 10
AT_ONCE = 3  # and no time limit has to run out for it: on a busy machine a moment takes a while


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


def some_storer(node, *, but=()):
    """A relay that this node can ask, since it is not its guard; nor the next guard, if there is another relay."""
    client = node._client
    guards = client.guards.usable(client.candidates, client.rng)
    order = [*(entry for entry in client.table if entry not in guards), *reversed(guards[1:])]
    return next(entry for entry in order if str(entry.relay_id) not in but)


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


async def republish(target):
    """Lets the target publish the final hops it has once more."""
    attached = target._target._attachments
    finals = tuple(each.entry for each in attached.attachments)
    await target._target._publish(Publish(finals, attached._schedule.periods(target._clock())))


async def still(value, seconds=0.15):
    """Waits until something has not changed for a while."""
    loop = asyncio.get_running_loop()
    seen, since = value(), loop.time()

    def settled():
        nonlocal seen, since
        if value() != seen:
            seen, since = value(), loop.time()
        return loop.time() - since > seconds

    await until(settled)
