"""What a relay's engine spends on a cell it forwards: `python -m benchmarks.forward`.

One middle relay with real links, built in memory; a read buffer full of cells is fed to it again and again. No sockets
and no TLS: those cost what they cost. Beside it stands what the onion layer alone takes.
"""

import os
import time
from collections.abc import Callable

from onionrelay.base.limits import LARGE_CELL, MAX_ALLOWANCE, READ_BUFFER, SMALL_CELL
from onionrelay.core.circuit.side import CircuitSide
from onionrelay.crypto.layer import LayerForEnc
from onionrelay.testing.memory_link import SPARE
from onionrelay.testing.memory_net import MemoryNet, MemoryNode
from onionrelay.wire.cell import HEADER, Cmd

ROUNDS = 40
REPEATS = 5
WARM_HEAP = 16 * 1024 * 1024
"""A block this large, once freed, keeps glibc from giving the outbox's pages back after every flush."""


class Relay:
    """The second of three relays on an open circuit, and the circuit's two sides there."""

    def __init__(self) -> None:
        net = MemoryNet(seed=1)
        relays = [net.relay(f"relay{i}") for i in range(3)]
        net.client("client").open_circuit(relays)
        net.run(1)
        self.node: MemoryNode = relays[1]
        (self.up,) = net.between(relays[0], relays[1]).back.sender[1].sides.values()
        (self.down,) = net.between(relays[1], relays[2]).forth.sender[1].sides.values()

    def forward(self, arriving: CircuitSide, leaving: CircuitSide, cmd: int, size: int) -> float:
        """Microseconds for one cell from one side to the other."""
        cells = READ_BUFFER // size
        full = (HEADER.pack(arriving.circ_id, cmd, 0, 0) + os.urandom(size - 8)) * cells + bytes(SPARE)
        buf = bytearray(full)

        def read() -> None:
            buf[:] = full
            arriving.window.left = MAX_ALLOWANCE
            leaving.allowance = len(full)
            self.node.engine.feed(arriving.channel, buf, len(full) - SPARE, 1.0, 1_800_000_000)
            leaving.channel.outbox.clear()
            leaving.channel.congested = False
            self.node.engine.take_dirty()

        return best_of(read) / cells


def best_of(call: Callable[[], None]) -> float:
    """Microseconds of one call, in the best of several measurements."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(ROUNDS):
            call()
        best = min(best, time.perf_counter() - started)
    return best / ROUNDS * 1e6


def layer_alone(size: int) -> float:
    """Microseconds of one application of the onion layer."""
    layer = LayerForEnc(os.urandom(112))
    cell = bytearray(os.urandom(size + SPARE))
    return best_of(lambda: layer.enc(cell, 0, size))


def main() -> None:
    """Prints one line for each cell size."""
    bytes(WARM_HEAP)
    relay = Relay()
    for name, cmd, size in (("small", Cmd.RELAY, SMALL_CELL), ("large", Cmd.RELAY_BULK, LARGE_CELL)):
        forward = relay.forward(relay.up, relay.down, cmd, size)
        backward = relay.forward(relay.down, relay.up, cmd, size)
        alone = layer_alone(size)
        print(f"{name}  forward {forward:5.2f} us  backward {backward:5.2f} us  of which the layer {alone:5.2f} us")


if __name__ == "__main__":
    main()
