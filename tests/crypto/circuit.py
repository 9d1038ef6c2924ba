"""A circuit's cell layers without anything around them: a client, hops, and cells as plain values."""

from onionrelay.base.limits import LARGE_CELL, SMALL_CELL
from onionrelay.crypto.layer import LayerForDec, LayerForEnc
from tests.seeded import SeededRng

SMALL, LARGE = (SMALL_CELL, 3), (LARGE_CELL, 15)
CLASSES = (SMALL, LARGE)
SPARE = 16


def new_cell(size, cmd, payload):
    """A whole cell with room for N, and the spare bytes behind it."""
    assert len(payload) == size - 24
    return bytearray(b"\1\2\3\4" + bytes([cmd]) + bytes(3 + 16) + payload + bytes(SPARE))


def size_of(cell):
    return len(cell) - SPARE


def payload_of(cell):
    return bytes(cell[24:-SPARE])


def random_payload(rng, size):
    return rng.token(size - 24)


class Client:
    """Destroys the circuit at the first cell it does not recognise, as specs/04-cells.md demands."""

    def __init__(self, seeds):
        self.destroyed = False
        self.forward = [LayerForDec(forward) for forward, _ in seeds]
        self.backward = [LayerForDec(backward) for _, backward in seeds]

    def send(self, hop, size, cmd, payload):
        cell = new_cell(size, cmd, payload)
        end = self.forward[hop]
        end.mark(cell, 0)
        end.dec(cell, 0, size)
        end.update()
        for layer in reversed(self.forward[:hop]):
            layer.dec(cell, 0, size)
        return cell

    def receive(self, cell):
        """The hop that the cell comes from, or None; the payload is in the cell."""
        if self.destroyed:
            return None
        for hop, layer in enumerate(self.backward):
            layer.dec(cell, 0, size_of(cell))
            if layer.is_mine(cell, 0):
                layer.update()
                return hop
        self.destroyed = True
        return None


class Hop:
    def __init__(self, seed):
        self.forward, self.backward = LayerForEnc(seed[0]), LayerForEnc(seed[1])

    def receive(self, cell):
        """Whether the cell ends here; if not it is ready for the next hop."""
        self.forward.enc(cell, 0, size_of(cell))
        mine = self.forward.is_mine(cell, 0)
        if mine:
            self.forward.update()
        return mine

    def originate(self, size, cmd, payload):
        cell = new_cell(size, cmd, payload)
        self.backward.mark(cell, 0)
        self.backward.enc(cell, 0, size)
        self.backward.update()
        return cell

    def pass_back(self, cell):
        self.backward.enc(cell, 0, size_of(cell))


class Circuit:
    def __init__(self, hops, seed=0, seeds=None):
        self.rng = SeededRng(seed)
        seeds = seeds or [(self.rng.token(112), self.rng.token(112)) for _ in range(hops)]
        self.client = Client(seeds)
        self.hops = [Hop(seed) for seed in seeds]

    def deliver(self, cell, first=0):
        """Which hop recognises a forward cell that enters at hop `first`; None if none does."""
        return next((index for index in range(first, len(self.hops)) if self.hops[index].receive(cell)), None)

    def bring_back(self, cell, through):
        """Which hop the client recognises in a backward cell that still has to pass `through` hops."""
        for hop in reversed(self.hops[:through]):
            hop.pass_back(cell)
        return self.client.receive(cell)
