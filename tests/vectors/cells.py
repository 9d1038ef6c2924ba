"""Vectors of the layer of specs/04-cells.md."""

import hashlib

from tests.crypto.circuit import LARGE, SMALL, SPARE, Circuit
from tests.seeded import SeededRng
from tests.vectors import model

CHAPTER = "specs/04-cells.md"
SIZES = {3: SMALL[0], 15: LARGE[0]}
HOPS = 4


def layer_vectors():
    return {
        "chapter": CHAPTER,
        "about": "one layer, cell after cell; a body of one repeated byte is given by it, other large bodies by SHA-256",
        "accept": [
            layer_case("ENC of small cells", "enc", [(3, False), (3, False), (3, True), (3, False)]),
            layer_case("DEC of small cells", "dec", [(3, False), (3, False), (3, True), (3, False)]),
            layer_case(
                "ENC of both sizes, an update after each", "enc", [(15, True), (3, True), (15, True), (3, True)]
            ),
            layer_case(
                "DEC of both sizes, an update after each", "dec", [(15, True), (3, True), (15, True), (3, True)]
            ),
            layer_case("a small body under the command of large ones", "enc", [(3, False), (15, False)], size=SMALL[0]),
        ],
        "reject": [],
    }


def layer_case(name, side, cells, size=None):
    seed = SeededRng(name).token(112)
    layer, steps = model.Layer(seed), []
    for number, (cmd, update) in enumerate(cells):
        body = bytes([number + 1]) * ((size or SIZES[cmd]) - 8)
        step = {"cmd": cmd, "size": len(body), "fill": number + 1, "T": layer.chain.hex(), "N": layer.mark.hex()}
        out = getattr(layer, side)(cmd, body)
        right = out[16:] if side == "dec" else body[16:]
        before = model.Layer(layer.seed)
        before.chain = bytes.fromhex(step["T"])
        step |= {"h": before.hash(cmd, right).hex(), "out_left": out[:16].hex(), "out_sha256": sha256(out)}
        if update:
            layer.update()
            step["updated_seed"] = layer.seed.hex()
        steps.append(step)
    return {"name": name, "side": side, "seed": seed.hex(), "cells": steps}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def circuit_vectors():
    rng = SeededRng("layer circuit")
    seeds = [(rng.token(112), rng.token(112)) for _ in range(HOPS)]
    return {
        "chapter": CHAPTER,
        "about": (
            "the layers of a circuit of four hops; every payload is one repeated byte; `links` are SHA-256 of the body"
            " on each link, in the order of travel; a rejected cell is the first of a new circuit, and nobody recognises it"
        ),
        "seeds": [{"forward": forward.hex(), "backward": backward.hex()} for forward, backward in seeds],
        "accept": [circuit_case(seeds, rng)],
        "reject": bad_cells(),
    }


def circuit_case(seeds, rng):
    circuit = Circuit(len(seeds), seeds=seeds)
    steps = []
    for number in range(24):
        cmd, hop = (3, 15)[rng.below(2)], rng.below(HOPS)
        origin = ("client", "hop")[number % 2]
        travel = forward_links if origin == "client" else backward_links
        links = travel(circuit, hop, cmd, number + 1)
        steps.append({"from": origin, "hop": hop, "cmd": cmd, "fill": number + 1, "links": list(map(sha256, links))})
    return {"name": "24 cells both ways", "steps": steps}


def forward_links(circuit, hop, cmd, fill):
    cell = circuit.client.send(hop, SIZES[cmd], cmd, bytes([fill]) * (SIZES[cmd] - 24))
    links = [body(cell)]
    for index in range(hop + 1):
        mine = circuit.hops[index].receive(cell)
        assert mine == (index == hop)
        if not mine:
            links.append(body(cell))
    return links


def backward_links(circuit, hop, cmd, fill):
    cell = circuit.hops[hop].originate(SIZES[cmd], cmd, bytes([fill]) * (SIZES[cmd] - 24))
    links = [body(cell)]
    for index in range(hop - 1, -1, -1):
        circuit.hops[index].pass_back(cell)
        links.append(body(cell))
    assert circuit.client.receive(cell) == hop
    return links


def body(cell):
    return bytes(cell[8:-SPARE])


def bad_cells():
    """`link` counts from the client's, 0; `at` is in the body."""
    cases = []
    for origin in ("client", "hop"):
        for link in range(HOPS):
            cases += [
                {"from": origin, "cmd": 3, "link": link, "at": at, "flip": flip}
                for at, flip in ((0, 128), (16, 1), (1103, 64))
            ]
            cases += [
                {"from": origin, "cmd": 3, "link": link, "new_cmd": 15},
                {"from": origin, "cmd": 15, "link": link, "new_cmd": 3},
                {"from": origin, "cmd": 15, "link": link, "cut": 1104},
            ]
    return [{"name": name_of(case), "hop": HOPS - 1, **case, "error": "unrecognised"} for case in cases]


def name_of(case):
    what = f"byte {case['at']}" if "at" in case else "command" if "new_cmd" in case else "cut to a small body"
    return (
        f"{what} of {'a small' if case['cmd'] == 3 else 'a large'} cell from the {case['from']} on link {case['link']}"
    )


def change(cell, case):
    """Makes of the cell what the adversary of a rejected case passes on."""
    if "at" in case:
        cell[8 + case["at"]] ^= case["flip"]
    elif "new_cmd" in case:
        cell[4] = case["new_cmd"]
    else:
        del cell[8 + case["cut"] : -SPARE]
