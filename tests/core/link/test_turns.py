from collections import deque

from onionrelay.base.limits import LARGE_CELL, SMALL_CELL
from onionrelay.core.link.turns import QUANTUM, Turns


class Circuit:
    def __init__(self, *cells):
        self.cells = deque(cells)
        self.enlisted = False
        self.turn = 0

    @property
    def ready(self):
        return bool(self.cells)

    def send(self):
        self.turn -= self.cells.popleft()


def serve(turns, names, cells):
    """Sends this many cells; who sent them, in order."""
    order = []
    for _ in range(cells):
        circuit = turns.next()
        if circuit is None:
            break
        circuit.send()
        order.append(names[circuit])
    return order


def test_circuits_take_turns_of_a_quantum():
    turns = Turns()
    a, b = Circuit(*[LARGE_CELL] * 3), Circuit(*[SMALL_CELL] * 40)
    for circuit in (a, b):
        turns.enlist(circuit)
    small_run = -(-QUANTUM // SMALL_CELL)
    order = serve(turns, {a: "a", b: "b"}, 3 + 40)
    assert order[: 2 * small_run] == ["a"] + ["b"] * small_run + ["a"] + ["b"] * (small_run - 2)
    assert order.count("a") == 3
    assert order.count("b") == 40
    assert turns.next() is None


def test_a_quiet_circuit_goes_before_the_busy_ones():
    turns = Turns()
    bulk = [Circuit(*[LARGE_CELL] * 50) for _ in range(3)]
    for circuit in bulk:
        turns.enlist(circuit)
    names = dict.fromkeys(bulk, "bulk")
    serve(turns, names, 6)
    keystroke = Circuit(SMALL_CELL)
    names[keystroke] = "keystroke"
    turns.enlist(keystroke)
    assert serve(turns, names, 1) == ["keystroke"]


def test_a_circuit_that_always_offers_one_cell_does_not_stay_quiet():
    turns = Turns()
    honest = [Circuit(*[LARGE_CELL] * 100) for _ in range(4)]
    sly = Circuit()
    names = dict.fromkeys(honest, "honest") | {sly: "sly"}
    for circuit in honest:
        turns.enlist(circuit)
    order = []
    for _ in range(50):
        if not sly.cells:
            sly.cells.append(LARGE_CELL)
            turns.enlist(sly)
        order += serve(turns, names, 2)
    assert 18 <= order.count("sly") <= 22  # a fifth, as the others


def test_enlisting_twice_counts_once_and_an_idle_circuit_leaves():
    turns = Turns()
    circuit = Circuit(SMALL_CELL)
    turns.enlist(circuit)
    turns.enlist(circuit)
    assert serve(turns, {circuit: "x"}, 5) == ["x"]
    assert turns.next() is None
    assert not circuit.enlisted
