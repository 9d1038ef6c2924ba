"""A circuit serves one node and one isolation token."""

import asyncio

from onionrelay.base.errors import StreamRefused
from tests.node.overlays import PATIENCE, PORT, ask, target_of


async def test_connections_share_a_circuit_only_within_one_token(overlay):
    async with target_of(overlay) as target, overlay.node() as node:
        circuits = {}
        for token in (None, "a", "b", ("a", "b"), 0, None, "a", "b", ("a", "b"), 0):
            circuit = await ask(node, target, isolation=token)
            assert circuits.setdefault(token, circuit) is circuit
        assert len(set(circuits.values())) == 5


async def test_those_that_ask_at_once_share_and_keep_apart_as_well(overlay):
    async with target_of(overlay) as target, overlay.node() as node:
        tokens = ["a", "b", "a", "b", None, None]
        taken = await asyncio.gather(*(ask(node, target, isolation=token) for token in tokens))
        by_token = {
            token: {circuit for each, circuit in zip(tokens, taken, strict=True) if each == token} for token in tokens
        }
        assert [len(circuits) for circuits in by_token.values()] == [1, 1, 1]
        assert len(set(taken)) == 3


async def test_a_circuit_that_ends_leaves_the_others(overlay):
    async with target_of(overlay) as target, overlay.node() as node:
        first, other = [await ask(node, target, isolation=token) for token in ("a", "b")]
        first.close()
        assert await ask(node, target, isolation="b") is other
        assert await ask(node, target, isolation="a") is not first


async def test_a_pair_is_isolated_too(overlay):
    async with target_of(overlay) as target, overlay.node() as node:
        circuits = []
        for token in ("a", "b", "a"):
            _, writer = await node.open_connection(target.node_id, PORT, isolation=token)
            circuits.append(writer.get_extra_info("circuit"))
            writer.close()
        assert circuits[0] is circuits[2] is not circuits[1]


async def test_a_refused_stream_costs_no_circuit(overlay):
    async with asyncio.timeout(PATIENCE), target_of(overlay) as target, overlay.node() as node:
        before = await ask(node, target, isolation="a")
        try:
            await node.open_connection(target.node_id, PORT + 1, isolation="a")
        except StreamRefused:
            assert await ask(node, target, isolation="a") is before
        else:
            raise AssertionError("nobody serves that port")
