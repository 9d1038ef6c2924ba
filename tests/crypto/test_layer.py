import gc
import math

import pytest

from onionrelay.base.errors import UsageError
from onionrelay.crypto.layer import LayerForDec, LayerForEnc
from tests.crypto.circuit import CLASSES, LARGE, SMALL, SPARE, Circuit, new_cell, payload_of, random_payload, size_of
from tests.seeded import SeededRng

SEED = SeededRng("layer").token(112)
HOPS = 5
BY_CLASS = pytest.mark.parametrize(("size", "cmd"), CLASSES, ids=["small", "large"])


def test_both_directions_at_every_hop_with_the_sizes_mixed():
    circuit = Circuit(HOPS)
    for step in range(200):
        hop, (size, cmd) = circuit.rng.below(HOPS), CLASSES[circuit.rng.below(2)]
        payload = random_payload(circuit.rng, size)
        if step % 2:
            cell = circuit.client.send(hop, size, cmd, payload)
            assert circuit.deliver(cell) == hop
        else:
            cell = circuit.hops[hop].originate(size, cmd, payload)
            assert circuit.bring_back(cell, hop) == hop
        assert payload_of(cell) == payload


@BY_CLASS
def test_only_the_body_changes_wherever_the_cell_stands(size, cmd):
    rng = SeededRng(2)
    for start in (0, 1, 13, 1112):
        buf = bytearray(rng.token(start + size + SPARE + 7))
        buf[start + 4] = cmd
        before = bytes(buf)
        enc, dec = LayerForEnc(SEED), LayerForDec(SEED)
        enc.enc(buf, start, size)
        assert buf[: start + 8] == before[: start + 8]
        assert buf[start + size :] == before[start + size :]
        assert sum(a == b for a, b in zip(buf[start + 8 : start + size], before[start + 8 :], strict=False)) < size / 50
        dec.dec(buf, start, size)
        assert buf == before


def test_cells_of_one_read_are_worked_on_where_they_lie():
    rng = SeededRng(3)
    cells = [new_cell(size, cmd, random_payload(rng, size))[:-SPARE] for size, cmd in (SMALL, LARGE, SMALL, SMALL)]
    buf = bytearray(b"".join(cells)) + bytes(SPARE)
    together, apart = LayerForEnc(SEED), LayerForEnc(SEED)
    start = 0
    for cell in cells:
        together.enc(buf, start, len(cell))
        alone = cell + bytes(SPARE)
        apart.enc(alone, 0, len(cell))
        assert buf[start : start + len(cell)] == alone[:-SPARE]
        start += len(cell)


def test_the_buffer_can_be_resized_afterwards():
    buf = new_cell(*SMALL, bytes(1088))
    LayerForEnc(SEED).enc(buf, 0, 1112)
    del buf[:500]


def test_n_serves_once():
    layer = LayerForEnc(SEED)
    buf = bytearray(40)
    marks = set()
    for _ in range(50):
        layer.mark(buf, 0)
        assert layer.is_mine(buf, 0)
        marks.add(bytes(buf[8:24]))
        layer.update()
        assert not layer.is_mine(buf, 0)
    assert len(marks) == 50


def test_the_update_depends_on_the_cells_that_went_before():
    marks = []
    for payload in (bytes(1088), b"\1" + bytes(1087)):
        layer = LayerForEnc(SEED)
        cell = new_cell(*SMALL, payload)
        layer.enc(cell, 0, 1112)
        layer.update()
        layer.mark(cell, 0)
        marks.append(bytes(cell[8:24]))
    assert marks[0] != marks[1]


def test_an_update_leaves_no_way_back_to_the_old_seed():
    """What Python objects can show: nothing reachable from the layer holds a part of the seed."""
    layer = LayerForEnc(SEED)
    parts = {SEED, SEED[:32], SEED[32:64], SEED[64:96], SEED[96:]}
    assert parts & held_bytes(layer)
    layer.update()
    assert not parts & held_bytes(layer)


def held_bytes(layer):
    seen, todo = {}, [layer]
    while todo:
        thing = todo.pop()
        if id(thing) not in seen and not isinstance(thing, type):
            seen[id(thing)] = thing
            todo += gc.get_referents(thing)
    return {thing for thing in seen.values() if isinstance(thing, bytes)}


@pytest.mark.parametrize("size", [0, 111, 113])
def test_a_seed_of_the_wrong_length_is_the_callers_fault(size):
    for kind in (LayerForEnc, LayerForDec):
        with pytest.raises(UsageError, match=f"not {size}"):
            kind(bytes(size))


def test_repr_keeps_the_secrets():
    assert repr(LayerForEnc(SEED)) == "LayerForEnc()"


def flip(cell, rng):
    bit = rng.below((size_of(cell) - 8) * 8)
    cell[8 + bit // 8] ^= 1 << bit % 8


def truncate(cell, _):
    """A large cell cut to a small one, or a small one grown to a large one; the command stays."""
    size = LARGE[0] if size_of(cell) == SMALL[0] else SMALL[0]
    whole = bytes(cell[:-SPARE]).ljust(size, b"\0")[:size]
    cell[:] = whole + bytes(SPARE)


def change_class(cell, rng):
    truncate(cell, rng)
    change_command(cell, rng)


def change_command(cell, _):
    cell[4] = LARGE[1] if cell[4] == SMALL[1] else SMALL[1]


def replace(cell, rng):
    cell[8:-SPARE] = rng.token(size_of(cell) - 8)


ALTERATIONS = [flip, truncate, change_class, change_command, replace]


@BY_CLASS
@pytest.mark.parametrize("alter", ALTERATIONS)
def test_an_altered_forward_cell_kills_the_circuit_from_there_on(size, cmd, alter):
    for at in range(HOPS):
        for target in range(at, HOPS):
            circuit = Circuit(HOPS, seed=f"{alter.__name__} {at} {target}")
            cell = circuit.client.send(target, size, cmd, bytes(size - 24))
            for hop in circuit.hops[:at]:
                assert not hop.receive(cell)
            alter(cell, circuit.rng)
            assert circuit.deliver(cell, at) is None
            assert payload_of(cell) != bytes(len(payload_of(cell)))
            assert_dead_forward(circuit, at)


@BY_CLASS
@pytest.mark.parametrize("alter", ALTERATIONS)
def test_an_altered_backward_cell_makes_the_client_destroy_the_circuit(size, cmd, alter):
    for at in range(HOPS):
        for source in range(at, HOPS):
            circuit = Circuit(HOPS, seed=f"back {alter.__name__} {at} {source}")
            cell = circuit.hops[source].originate(size, cmd, bytes(size - 24))
            for hop in reversed(circuit.hops[at:source]):
                hop.pass_back(cell)
            alter(cell, circuit.rng)
            assert circuit.bring_back(cell, at) is None
            assert circuit.client.destroyed


def assert_dead_forward(circuit, at):
    for target in range(at, HOPS):
        for size, cmd in CLASSES:
            cell = circuit.client.send(target, size, cmd, bytes(size - 24))
            assert circuit.deliver(cell) is None


def test_a_client_that_went_on_after_an_unrecognised_cell_would_recognise_later_ones():
    """DEC falls back into step, unlike ENC: T is the tag as it came. So the DESTROY is part of the cryptography."""
    circuit = Circuit(2)
    cell = circuit.hops[0].originate(*SMALL, bytes(1088))
    replaced = bytearray(cell)
    replace(replaced, circuit.rng)
    assert circuit.bring_back(replaced, 0) is None
    circuit.client.destroyed = False
    assert circuit.bring_back(cell, 0) is None
    circuit = Circuit(2)
    for source, end in ((1, None), (0, 0)):
        cell = circuit.hops[source].originate(*SMALL, bytes(1088))
        if source:
            circuit.hops[0].pass_back(cell)
            cell[-SPARE - 1] ^= 1
        circuit.client.destroyed = False
        assert circuit.bring_back(cell, 0) is end


def dropped(cells):
    return cells[1:]


def doubled(cells):
    return [cells[0], bytearray(cells[0]), *cells[1:]]


def swapped(cells):
    return [cells[1], cells[0], *cells[2:]]


def delayed(cells):
    return [cells[1], cells[2], cells[0]]


@BY_CLASS
@pytest.mark.parametrize(("reorder", "intact"), [(dropped, 0), (doubled, 1), (swapped, 0), (delayed, 0)])
def test_a_stream_of_cells_that_is_not_the_one_sent_dies_where_it_differs(size, cmd, reorder, intact):
    for at in range(HOPS):
        circuit = Circuit(HOPS, seed=f"order {at}")
        cells = [circuit.client.send(HOPS - 1, size, cmd, random_payload(circuit.rng, size)) for _ in range(3)]
        for hop in circuit.hops[:at]:
            for cell in cells:
                assert not hop.receive(cell)
        ends = [circuit.deliver(cell, at) for cell in reorder(cells)]
        assert ends == [HOPS - 1] * intact + [None] * (len(ends) - intact)
        assert_dead_forward(circuit, at)

        circuit = Circuit(HOPS, seed=f"order back {at}")
        cells = [circuit.hops[HOPS - 1].originate(size, cmd, random_payload(circuit.rng, size)) for _ in range(3)]
        for hop in reversed(circuit.hops[at : HOPS - 1]):
            for cell in cells:
                hop.pass_back(cell)
        ends = [circuit.bring_back(cell, at) for cell in reorder(cells)]
        assert ends == [HOPS - 1] * intact + [None] * (len(ends) - intact)
        assert circuit.client.destroyed


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_tag_and_untag_around_an_honest_hop_is_never_recognised(direction):
    """Colluding hops on both sides of an honest one, ten thousand tries: one XORs a pattern in, the other out."""
    rng = SeededRng(direction)
    honest_seed, end_seed = rng.token(112), rng.token(112)
    survived = 0
    for _ in range(10_000):
        pattern = 1 << rng.below(1104 * 8)
        if direction == "forward":
            end, honest = LayerForDec(end_seed), LayerForDec(honest_seed)
            cell = new_cell(*SMALL, bytes(1088))
            end.mark(cell, 0)
            end.dec(cell, 0, 1112)
            honest.dec(cell, 0, 1112)
            xor(cell, pattern)
            LayerForEnc(honest_seed).enc(cell, 0, 1112)
            xor(cell, pattern)
            last = LayerForEnc(end_seed)
            last.enc(cell, 0, 1112)
        else:
            last = LayerForEnc(end_seed)
            cell = new_cell(*SMALL, bytes(1088))
            last.mark(cell, 0)
            last.enc(cell, 0, 1112)
            xor(cell, pattern)
            LayerForEnc(honest_seed).enc(cell, 0, 1112)
            xor(cell, pattern)
            for layer in (LayerForDec(honest_seed), LayerForDec(end_seed)):
                layer.dec(cell, 0, 1112)
        survived += last.is_mine(cell, 0) or payload_of(cell) == bytes(1088)
    assert survived == 0


def xor(cell, pattern):
    body = int.from_bytes(cell[8:-SPARE]) ^ pattern
    cell[8:-SPARE] = body.to_bytes(len(cell) - 8 - SPARE)


def changed_bits(method, rng, trials):
    """How many bits of the output differ when one bit of the input does, as a z-score against half of them."""
    differing = 0
    for _ in range(trials):
        one = new_cell(*SMALL, rng.token(1088))
        other = bytearray(one)
        flip(other, rng)
        for cell in (one, other):
            method(cell)
        differing += (int.from_bytes(one[8:-SPARE]) ^ int.from_bytes(other[8:-SPARE])).bit_count()
    bits = trials * 1104 * 8
    return (differing - bits / 2) / math.sqrt(bits / 4)


def test_one_changed_bit_changes_half_of_what_a_relay_passes_on():
    """Two-sided at alpha = 1e-4 (|z| < 3.89), 300 cells. DEC, whose right half is malleable, has to fail the test."""
    rng = SeededRng(9)
    assert abs(changed_bits(lambda cell: LayerForEnc(SEED).enc(cell, 0, 1112), rng, 300)) < 3.89
    assert abs(changed_bits(lambda cell: LayerForDec(SEED).dec(cell, 0, 1112), rng, 300)) > 100
