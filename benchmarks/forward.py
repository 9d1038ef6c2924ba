"""What a relay's engine spends on a cell it forwards: `python -m benchmarks.forward`.

One middle relay with real links, built in memory; a read buffer full of cells is fed to it again and again. No sockets
and no TLS: those cost what they cost. `layer` is the share of the onion layer alone.
"""

import os
import time
from collections.abc import Callable

from onionrelay.base.limits import LARGE_CELL, MAX_ALLOWANCE, READ_BUFFER, SMALL_CELL
from onionrelay.core.circuit.engine import Engine
from onionrelay.core.circuit.side import CircuitSide
from onionrelay.core.link.channel import Channel
from onionrelay.crypto.layer import LayerForEnc
from onionrelay.testing.memory_net import SPARE, MemoryNet
from onionrelay.wire.cell import HEADER, Cmd

ROUNDS = 40
REPEATS = 5


def microseconds(call: Callable[[], None], cells: int) -> float:
    """The best of several measurements, for one cell."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(ROUNDS):
            call()
        best = min(best, time.perf_counter() - started)
    return best / ROUNDS / cells * 1e6


def middle_relay() -> tuple[Engine, CircuitSide, CircuitSide]:
    """The engine of the second of three relays on an open circuit, and the circuit's two sides there."""
    net = MemoryNet(seed=1)
    relays = [net.relay(f"relay{i}") for i in range(3)]
    net.client("client").open_circuit(relays)
    net.run(1)
    (up,) = net.between(relays[0], relays[1]).back.sender[1].sides.values()
    (down,) = net.between(relays[1], relays[2]).forth.sender[1].sides.values()
    return relays[1].engine, up, down


def main() -> None:
    """Prints one line for each cell size and direction."""
    engine, up, down = middle_relay()
    for name, cmd, size in (("small", Cmd.RELAY, SMALL_CELL), ("large", Cmd.RELAY_BULK, LARGE_CELL)):
        cells = READ_BUFFER // size
        layer = LayerForEnc(os.urandom(112))
        body = bytearray(os.urandom(size + SPARE))
        alone = microseconds(lambda: layer.enc(body, 0, size), 1)
        for way, arriving, leaving in (("forward", up, down), ("backward", down, up)):
            one = HEADER.pack(arriving.circ_id, cmd, 0, 0) + os.urandom(size - 8)
            buf = bytearray(one * cells + bytes(SPARE))
            spent = microseconds(lambda: feed(engine, arriving, leaving, buf, one), cells)
            print(f"{name} {way:8} {spent:6.2f} us a cell, of which the layer {alone:5.2f}")


def feed(engine: Engine, arriving: CircuitSide, leaving: CircuitSide, buf: bytearray, one: bytes) -> None:
    """One read of the arriving link, everything sent on the leaving one, and all credit given."""
    channel: Channel = arriving.channel
    for at in range(0, len(buf) - SPARE, len(one)):
        buf[at : at + 4] = one[:4]  # forwarding has rewritten it
    arriving.window.left = MAX_ALLOWANCE
    leaving.allowance = len(buf)
    engine.feed(channel, buf, len(buf) - SPARE, 1.0, 1_800_000_000)
    leaving.channel.outbox.clear()
    leaving.channel.congested = False
    channel.outbox.clear()
    engine.take_dirty()


if __name__ == "__main__":
    main()
