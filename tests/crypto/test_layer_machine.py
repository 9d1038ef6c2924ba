"""The layer against an adversary on every link, move by move.

A cell waits in the queue of a link until a step takes it over that link. From the first cell on that is not the one
put on a link at that place, everything that crosses the link is tainted. Two things hold whatever happens: an untainted
cell is recognised by exactly the one it is for, with the payload sent; a tainted cell is recognised by nobody, ever.
"""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.crypto.circuit import CLASSES, SPARE, Circuit, payload_of, random_payload, size_of
from tests.seeded import SeededRng

PICK = st.integers(0, 2**16)


class Sent:
    """A cell as an honest party put it on a link. `payload` and `end` are what its originator meant."""

    def __init__(self, cell, payload=None, end=None, *, tainted=False):
        self.cell, self.payload, self.end, self.tainted = bytes(cell), payload, end, tainted


class Link:
    """One direction of one link. `hop` is the hop on its far side, seen from the client.

    `queue` holds what an adversary has made of the cells that were put on the link, `expected` what they were.
    """

    def __init__(self, hop, *, forward):
        self.hop, self.forward = hop, forward
        self.queue, self.expected = [], deque()
        self.broken = False

    def put(self, cell, sent):
        self.queue.append(cell)
        self.expected.append(sent)

    def cross(self):
        """The next cell, and what it was meant to be."""
        cell = self.queue.pop(0)
        if not self.broken and self.expected and self.expected[0].cell == cell:
            return cell, self.expected.popleft()
        self.broken = True
        return cell, Sent(cell, tainted=True)


def flip(queue, place, detail, _):
    cell = queue[place]
    cell[8 + detail // 8 % (size_of(cell) - 8)] ^= 1 << detail % 8


def drop(queue, place, *_):
    del queue[place]


def double(queue, place, *_):
    queue.insert(place, bytearray(queue[place]))


def swap(queue, place, *_):
    other = (place + 1) % len(queue)
    queue[place], queue[other] = queue[other], queue[place]


def inject_noise(queue, place, detail, _):
    size, cmd = CLASSES[detail % 2]
    queue.insert(place, with_header(cmd, SeededRng(detail).token(size - 8)))


def inject_an_old_cell(queue, place, detail, seen):
    if seen:
        queue.insert(place, bytearray(seen[detail % len(seen)]))


def change_the_command(queue, place, *_):
    queue[place][4] ^= 3 ^ 15


def change_the_size_class(queue, place, *_):
    cell = queue[place]
    size, cmd = CLASSES[size_of(cell) == CLASSES[0][0]]
    queue[place] = with_header(cmd, bytes(cell[8:-SPARE]).ljust(size - 8, b"\0")[: size - 8])


def with_header(cmd, body):
    return bytearray(b"\1\2\3\4" + bytes([cmd]) + bytes(3) + body + bytes(SPARE))


MOVES = [flip, drop, double, swap, inject_noise, inject_an_old_cell, change_the_command, change_the_size_class]


class LayerMachine(RuleBasedStateMachine):
    @initialize(hops=st.integers(1, 4), seed=st.integers(0, 2**32), moves=st.integers(0, 3))
    def build(self, hops, seed, moves):
        self.moves = moves
        self.circuit = Circuit(hops, seed)
        self.rng = self.circuit.rng
        self.forward = [Link(hop, forward=True) for hop in range(hops)]
        self.backward = [Link(hop, forward=False) for hop in range(hops)]
        self.seen = []

    @rule(hop=PICK, size_class=st.integers(0, 1))
    def client_sends(self, hop, size_class):
        hop %= len(self.forward)
        size, cmd = CLASSES[size_class]
        payload = random_payload(self.rng, size)
        cell = self.circuit.client.send(hop, size, cmd, payload)
        self.forward[0].put(cell, Sent(cell, payload, hop))

    @rule(hop=PICK, size_class=st.integers(0, 1))
    def hop_sends(self, hop, size_class):
        hop %= len(self.backward)
        size, cmd = CLASSES[size_class]
        payload = random_payload(self.rng, size)
        cell = self.circuit.hops[hop].originate(size, cmd, payload)
        self.backward[hop].put(cell, Sent(cell, payload, hop))

    def busy(self):
        return [link for link in self.forward + self.backward if link.queue]

    @precondition(lambda self: self.busy())
    @rule(pick=PICK, count=st.integers(1, 4))
    def step(self, pick, count):
        for _ in range(count):
            if self.busy():
                self.cross(self.busy()[pick % len(self.busy())])

    def cross(self, link):
        cell, sent = link.cross()
        self.seen.append(bytes(cell))
        if link.forward:
            self.arrive_at_hop(link.hop, cell, sent)
        elif link.hop:
            self.circuit.hops[link.hop - 1].pass_back(cell)
            self.pass_on(self.backward[link.hop - 1], cell, sent)
        elif not self.circuit.client.destroyed:
            self.check(cell, sent, self.circuit.client.receive(cell))

    def arrive_at_hop(self, hop, cell, sent):
        if self.circuit.hops[hop].receive(cell):
            self.check(cell, sent, hop)
        elif hop + 1 < len(self.forward):
            self.pass_on(self.forward[hop + 1], cell, sent)
        else:
            self.check(cell, sent, None)

    def pass_on(self, link, cell, sent):
        link.put(cell, Sent(cell, sent.payload, sent.end, tainted=sent.tainted))

    def check(self, cell, sent, end):
        assert end == (None if sent.tainted else sent.end)
        if not sent.tainted:
            assert payload_of(cell) == sent.payload

    @rule()
    def everything_arrives(self):
        while self.busy():
            self.cross(self.busy()[0])

    @precondition(lambda self: self.moves and self.busy())
    @rule(move=st.sampled_from(MOVES), pick=PICK, detail=PICK)
    def the_adversary_moves(self, move, pick, detail):
        self.moves -= 1
        link = self.busy()[pick % len(self.busy())]
        place = pick // len(self.busy()) % len(link.queue)
        move(link.queue, place, detail, self.seen)


TestLayerMachine = LayerMachine.TestCase
TestLayerMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, derandomize=True)
