"""How descriptors get to every relay."""

import asyncio

import pytest

from onionrelay.base.errors import ConfigError
from onionrelay.core.directory.descriptor import verify_descriptor
from onionrelay.core.directory.table import Added, Outcome
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.node import exchange as exchange_module
from onionrelay.node.relay import RelayNode
from onionrelay.testing.overlay import LocalOverlay, knows, until
from onionrelay.wire.directory import DirPut, DirReceipt, StoreResult
from tests.node.overlays import AT_ONCE, Clock


async def test_a_relay_that_starts_later_is_known_everywhere_at_once(overlay):
    await overlay.stop(6)
    await overlay.stop(7)
    for index in (6, 7):
        late = await overlay.start(index)
        async with asyncio.timeout(AT_ONCE):
            await until(lambda late=late: all(knows(relay, late) for relay in overlay.relays.values()))
        await until(lambda late=late: len(late.table) == 8)


async def test_a_relay_that_restarts_in_the_same_second_replaces_its_descriptor():
    clock = Clock()
    moment = clock()
    async with LocalOverlay(4, seeds=2, clock=lambda: moment + clock.shift) as overlay:
        for index in (3, 0, 3):
            before = overlay.relays[index].table.get(overlay.relays[index].relay_id)
            relay = await overlay.restart(index)
            after = relay.table.get(relay.relay_id)
            assert after.descriptor.seq > before.descriptor.seq
            assert after.onion != before.onion


async def test_a_relay_whose_clock_was_ahead_outdoes_what_it_said_then():
    clock = Clock()
    async with LocalOverlay(4, seeds=2, clock=clock) as overlay:
        seq = overlay.relays[3].table.get(overlay.relays[3].relay_id).descriptor.seq
        clock.shift = -600
        relay = await overlay.restart(3)
        assert relay.table.get(relay.relay_id).descriptor.seq == seq + 1
        clock.shift = 0
        relay._exchange.publish()
        assert relay.table.get(relay.relay_id).descriptor.seq > seq + 1


async def test_a_seed_that_was_away_learns_everything_again(overlay, monkeypatch):
    monkeypatch.setattr(exchange_module, "REDIAL_FIRST", 0.05)
    await overlay.restart(0)
    assert len(overlay.relays[0].table) == 8


async def test_seeds_that_do_not_answer_are_tried_again(monkeypatch):
    monkeypatch.setattr(exchange_module, "REDIAL_FIRST", 0.02)
    async with LocalOverlay(3, seeds=3) as overlay:
        for index in range(3):
            await overlay.stop(index)
        events = []
        alone = RelayNode(overlay._homes[0], overlay.network, on_event=events.append)
        async with alone:
            assert events == []
            await overlay.start(1)
            await until(lambda: events)
            assert events[0]["event"] == "linked"
            assert events[0]["seed"] == str(overlay.relays[1].invite.endpoint.addresses[0])
            assert events[0]["relays"] >= 1
            await until(lambda: knows(alone, overlay.relays[1]) and knows(overlay.relays[1], alone))


async def test_neither_an_event_that_breaks_nor_a_descriptor_that_does_not_hold_ends_a_link_to_a_seed(monkeypatch):
    monkeypatch.setattr(exchange_module, "REDIAL_FIRST", 0.02)
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    def broken(event):
        raise OSError("nobody reads this")

    async with LocalOverlay(2, seeds=1) as overlay:
        await overlay.stop(1)
        async with RelayNode(overlay._homes[1], overlay.network, on_event=broken) as relay:
            seed = overlay.relays[0]
            await until(lambda: reports)
            assert [str(report["exception"]) for report in reports] == ["nobody reads this"]
            assert relay._links.find(seed.relay_id)  # the link is held all the same

            def does_not_hold(result):
                relay._exchange._outdo = outdo
                raise ConfigError("it does not hold")

            outdo, relay._exchange._outdo = relay._exchange._outdo, does_not_hold
            await overlay.stop(0)
            seed = await overlay.start(0)
            await until(lambda: len(reports) == 2)
            assert relay._exchange._outdo == outdo
            assert {str(report["exception"]) for report in reports} == {"nobody reads this"}


async def test_what_is_no_news_is_passed_on_to_nobody(overlay):
    relay, passed = overlay.relays[0], []
    relay._exchange.pass_on = lambda descriptor, source: passed.append(descriptor)
    neighbour = overlay.relays[1]
    channel = neighbour._links.find(relay.relay_id)
    receipt = await neighbour._requests.push(channel, neighbour.descriptor)
    assert receipt.result is StoreResult.STALE
    assert passed == []
    neighbour._exchange.publish()
    await until(lambda: passed)
    assert passed == [neighbour.descriptor]


async def test_a_descriptor_that_finds_no_room_is_passed_on_to_nobody(overlay, monkeypatch):
    """Even if others came and went for its sake: `version` tells of those."""
    relay, neighbour, passed = overlay.relays[0], overlay.relays[1], []
    channel = neighbour._links.find(relay.relay_id)

    def full(raw, unix_now):
        relay.table.version += 1
        return Added(Outcome.FULL, "the relay table is full")

    relay._exchange.pass_on = lambda descriptor, source: passed.append(descriptor)
    monkeypatch.setattr(relay.table, "add", full)
    assert (await neighbour._requests.push(channel, neighbour.descriptor)).result is StoreResult.FULL
    assert passed == []


async def test_a_flood_of_descriptors_over_one_link_is_slowed_down(overlay, monkeypatch):
    relay, neighbour = overlay.relays[0], overlay.relays[1]
    monkeypatch.setattr(exchange_module, "DIR_PUT_BURST", 3)
    relay._exchange._buckets.clear()
    channel = neighbour._links.find(relay.relay_id)
    results = [(await neighbour._requests.push(channel, b"junk")).result for _ in range(5)]
    assert results == [StoreResult.INVALID] * 3 + [StoreResult.BUSY] * 2
    other = overlay.relays[2]
    other_channel = other._links.find(relay.relay_id)
    assert await other._requests.push(other_channel, b"junk") == DirReceipt(StoreResult.INVALID)


async def test_an_anonymous_client_offers_no_descriptors(overlay):
    descriptor = overlay.relays[7].descriptor
    async with overlay.node() as client:
        entry = client._client.table.get(overlay.relays[0].relay_id)
        channel = await client._client._links.get(entry.relay_id, entry.endpoint)
        asking = asyncio.create_task(client._client._requests.ask(channel, DirPut(descriptor)))
        with pytest.raises(Exception, match="closed"):
            await asking
        await until(lambda: client._driver._ports == {})


async def test_a_descriptor_that_would_not_hold_is_not_published(overlay):
    relay = overlay.relays[7]
    good = relay.descriptor
    relay._exchange._describe = lambda seq: good[:-1]
    with pytest.raises(ConfigError, match="this relay's own descriptor does not hold"):
        relay._exchange.publish()
    assert relay.descriptor == good


async def test_a_link_that_is_gone_leaves_nothing(overlay):
    relay, neighbour = overlay.relays[0], overlay.relays[1]
    await neighbour._requests.push(neighbour._links.find(relay.relay_id), b"junk")
    assert relay._exchange._buckets
    for channel in tuple(relay._exchange._buckets):
        relay._driver.close_link(channel)
    await until(lambda: not relay._exchange._buckets)


async def test_what_a_relay_publishes_is_what_others_verify(overlay):
    relay = overlay.relays[5]
    entry = verify_descriptor(relay.descriptor, relay._clock(), relay.policy)
    assert entry.relay_id == relay.relay_id
    assert entry.endpoint == relay.invite.endpoint
    assert entry.onion == relay._ring.public


async def test_links_between_relays_serve_both(overlay):
    seeds = [overlay.relays[index] for index in range(3)]
    for relay in seeds:
        for other in seeds:
            if other is not relay:
                assert relay._links.find(other.relay_id).purpose in (LinkPurpose.RELAY, LinkPurpose.ACCEPTED)
