"""The overlay that the package ships for tests of programs that use it."""

import asyncio

import pytest

from onionrelay.base.errors import TimedOut, UsageError
from onionrelay.testing.overlay import LocalOverlay, knows, until


async def test_a_network_comes_and_goes_whole():
    async with LocalOverlay(5, seeds=2) as overlay:
        assert len(overlay.network.seeds) == 2
        assert overlay.network.testnet
        assert all(len(relay.table) == 5 for relay in overlay.relays.values())
        folder, relays = overlay.folder, list(overlay.relays.values())
    assert not folder.exists()
    assert not any(relay.addresses for relay in relays)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_relay_is_named_by_index_id_or_text_and_comes_back_with_new_keys():
    async with LocalOverlay(4, seeds=1) as overlay:
        relay = overlay.relays[2]
        assert [overlay.index(name) for name in (2, relay.relay_id, str(relay.relay_id))] == [2, 2, 2]
        with pytest.raises(UsageError, match="runs already"):
            await overlay.start(relay.relay_id)
        await overlay.stop(str(relay.relay_id))
        assert 2 not in overlay.relays
        back = await overlay.start(2)
        assert (back.relay_id, back.invite) == (relay.relay_id, relay.invite)
        assert back.descriptor != relay.descriptor
        await overlay.until_known()
        assert all(knows(other, back) for other in overlay.relays.values())


async def test_a_node_takes_the_clock_of_its_network_unless_told_otherwise():
    async with LocalOverlay(4, seeds=1, clock=lambda: 1_800_000_000) as overlay:
        assert overlay.node()._clock() == 1_800_000_000
        assert overlay.node(clock=lambda: 7)._clock() == 7
        async with overlay.node(home=overlay.home("client")) as node:
            assert len(node._client.table) == 4


def test_seeds_are_relays():
    for seeds in (0, 4):
        with pytest.raises(UsageError, match="cannot be seeds"):
            LocalOverlay(3, seeds=seeds)


async def test_waiting_has_an_end():
    with pytest.raises(TimedOut, match="pigs that fly took longer than"):
        await until(lambda: False, "pigs that fly", 0.01)
