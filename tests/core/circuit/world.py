"""An open circuit in a MemoryNet, and words for what is asked about it."""

import itertools
from dataclasses import replace

from onionrelay.core.circuit.end import CircuitEnd
from onionrelay.core.effects import (
    CircuitEnded,
    CircuitOpened,
    CircuitRefused,
    EndpointReached,
    LinkClosing,
    MessageArrived,
    RoomToSend,
)
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.testing.memory_net import MemoryNet
from onionrelay.wire.cell import HEADER
from onionrelay.wire.relay import RelayCmd

BULK = b"bulk" * 4088


class World:
    """A client, `relays` relays, and a target attached to the last one."""

    def __init__(self, relays=3, *, seed=1, **net):
        self.net = MemoryNet(seed, **net)
        self.relays = [self.net.relay(f"relay{i}") for i in range(1, relays + 1)]
        self.target = self.net.target("target")
        self.client = self.net.client("client")
        self.net.attach(self.target, self.relays[-1])
        self.origin = None

    def build(self, **record):
        """Starts a circuit to the target and lets it be answered."""
        self.origin = self.client.open_circuit(self.relays, self.target, **record)
        self.net.run(1)
        return self

    def plan(self, **record):
        return self.net.plan(self.relays, self.target, **record)

    def build_plan(self, plan, seconds=1.0):
        """Starts a circuit by a plan of the test's own."""
        net, channel = self.net, self.net.channel(self.client, self.relays[0], LinkPurpose.GUARD)
        net.run_until(lambda: channel.peer is not None)
        self.origin = self.client.act(lambda: self.client.engine.open_circuit(channel, plan, net.now, net.unix_now))
        net.run(seconds)
        return self

    @property
    def end(self) -> CircuitEnd:
        return self.target.seen(EndpointReached)[-1].hop

    @property
    def opened(self):
        return any(effect.origin is self.origin for effect in self.client.seen(CircuitOpened))

    @property
    def refused(self):
        """(hop, status, why) of the latest refusal."""
        refusal = self.client.seen(CircuitRefused)[-1]
        return refusal.hop, refusal.status, refusal.why

    @property
    def ended(self):
        return any(effect.end is self.origin for effect in self.client.seen(CircuitEnded))

    def call(self, node, *arguments, **options):
        """Sends a message from the client or the target."""
        end = self.origin if node is self.client else self.end
        node.act(lambda: end.send(*arguments, **options))

    def session(self):
        """Both ends have sent a SESS message."""
        self.call(self.client, RelayCmd.SESS, b"from client")
        self.net.run(0.2)
        self.call(self.target, RelayCmd.SESS, b"from target")
        self.net.run(0.2)
        return self

    def links(self):
        """The pipes of the circuit from client to target, each with its two directions as (out, back) of the client."""
        nodes = [self.client, *self.relays]
        pipes = [self.net.between(a, b) for a, b in itertools.pairwise(nodes)]
        directions = [(pipe.forth, pipe.back) for pipe in pipes]
        attachment = self.net.between(self.target, self.relays[-1])
        return [*directions, (attachment.back, attachment.forth)]

    def sides(self):
        """All circuit sides at all nodes."""
        channels = {direction.sender[1] for pipe in self.net.pipes for direction in (pipe.forth, pipe.back)}
        return [side for channel in channels for side in channel.sides.values()]


def with_record(plan, hop, **fields):
    """The plan with the record of one hop changed, counted from 1."""
    hops = list(plan.hops)
    hops[hop - 1] = replace(hops[hop - 1], record=replace(hops[hop - 1].record, **fields))
    return replace(plan, hops=tuple(hops))


def received(node, cmd=RelayCmd.SESS):
    """The data of the messages that arrived at a node."""
    return [message.data for message in node.seen(MessageArrived) if message.cmd == cmd]


def closings(node):
    return [closing.why for closing in node.seen(LinkClosing)]


def keep_sending(node, end, cmd=RelayCmd.SESS, data=BULK):
    """Sends for ever, as fast as the circuit takes it."""

    def pump():
        while end.can_send(large=True):
            end.send(cmd, data, large=True)

    node.on_effect = lambda effect: pump() if isinstance(effect, RoomToSend) and effect.end is end else None
    node.act(pump)


def header(cell):
    """(circ_id, cmd) of a cell."""
    return HEADER.unpack_from(cell)[:2]
