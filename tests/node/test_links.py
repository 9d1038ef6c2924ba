"""One link to each relay, dialled when it is first needed."""

import asyncio

import pytest

from onionrelay.base.errors import NetworkError
from onionrelay.base.limits import LINK_UNUSED
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.node.links import Links, dial_relay
from onionrelay.testing.overlay import until
from onionrelay.wire.address import Address, Endpoint, Transport
from tests.node.parties import Party, all_gone, mute_listener, parties, plan


class Linked(Party):
    """A party that keeps `Links`, as a relay does, or as a client does its guards'."""

    def __init__(self, purpose=LinkPurpose.RELAY, *, anonymous=False):
        super().__init__()
        self.purpose, self.anonymous = purpose, anonymous

    async def __aenter__(self):
        await super().__aenter__()

        def handshake(relay_id, digest):
            return self.handshake(relay_id, digest, anonymous=self.anonymous)

        keys = None if self.anonymous else self.keys
        self.links = Links(self.driver, handshake, self.purpose, build_keys=keys)
        return self

    def on_link_up(self, channel, peer):
        super().on_link_up(channel, peer)
        self.links.on_up(channel, peer)

    def on_link_down(self, channel, why):
        super().on_link_down(channel, why)
        self.links.on_down(channel)

    async def get(self, other):
        return await self.links.get(other.relay_id, other.endpoint)


class Opening:
    """Hears how a circuit comes along, and does not care."""

    def on_opened(self):
        pass

    def on_refused(self, hop, status, why):
        pass

    def on_ended(self, why):
        pass


def endpoint(*texts):
    return Endpoint.at(Transport.TLS, *map(Address.parse, texts))


async def test_links_that_are_wanted_at_once_are_one():
    async with Linked() as here, parties(1) as (there,):
        channels = await asyncio.gather(*(here.get(there) for _ in range(20)))
        assert set(channels) == {await here.get(there)}
        assert there.accepted == 1
        assert list(here.links) == [channels[0]]


async def test_a_relay_uses_the_link_that_the_other_one_dialled():
    async with Linked() as here, parties(1) as (there,):
        await there.dial(here)
        await until(lambda: here.links.find(there.relay_id))
        channel = await here.get(there)
        assert channel.is_server
        assert channel.build_keys is here.keys
        assert there.accepted == 0


async def test_of_two_links_the_older_one_is_used_and_then_the_other():
    async with Linked() as here, parties(1) as (there,):
        older = await here.get(there)
        await there.dial(here)
        await until(lambda: len(here.ups) == 2)
        newer = here.ups[1][0]
        assert await here.get(there) is older
        assert list(here.links) == [older]
        here.driver.close_link(older)
        await here.driver.wait_down(older)
        assert await here.get(there) is newer


async def test_links_without_circuits_are_found_unless_others_dialled_them_or_they_are_to_be_kept():
    async with Linked() as here, parties(4) as (bare, used, seed, caller):
        channel, busy, _ = [await here.get(there) for there in (bare, used, seed)]
        await caller.dial(here)
        await until(lambda: here.links.find(caller.relay_id))
        here.driver.open_circuit(busy, plan(used), Opening())
        kept = {seed.relay_id}
        assert here.links.unused(1000, but=kept) == []
        assert here.links.unused(1000 + LINK_UNUSED - 1, but=kept) == []
        assert here.links.unused(1000 + LINK_UNUSED, but=kept) == [channel]
        here.driver.open_circuit(channel, plan(bare), Opening())
        assert here.links.unused(1001 + LINK_UNUSED, but=kept) == []


async def test_a_link_that_is_gone_is_dialled_anew():
    async with Linked() as here, parties(1) as (there,):
        first = await here.get(there)
        here.driver.close_link(first)
        await here.driver.wait_down(first)
        assert here.links.find(there.relay_id) is None
        assert await here.get(there) is not first


async def test_a_link_is_not_used_from_the_moment_it_is_given_up():
    async with Linked() as here, parties(1) as (there,):
        first = await here.get(there)
        here.engine.close_link(first, "the peer has fallen silent")  # and the transport is not told yet
        assert here.links.find(there.relay_id) is None
        assert list(here.links) == []
        assert await here.get(there) is not first


async def test_a_clients_guard_links_are_for_circuits_only():
    async with Linked(LinkPurpose.GUARD, anonymous=True) as here, parties(1) as (there,):
        await here.dial(there, LinkPurpose.DIRECTORY, anonymous=True)
        assert list(here.links) == []
        await there.dial(here)  # whoever it is
        await until(lambda: len(here.ups) == 2)
        assert list(here.links) == []
        guard = await here.get(there)
        assert list(here.links) == [guard]
        assert guard.build_keys is None


async def test_a_false_address_given_by_one_does_not_spoil_the_dial_of_another():
    async with Linked() as here, parties(2) as (there, elsewhere):
        results = await asyncio.gather(
            here.links.get(there.relay_id, elsewhere.endpoint),  # another relay answers there
            here.links.get(there.relay_id, there.endpoint),
            return_exceptions=True,
        )
        assert isinstance(results[0], NetworkError)
        assert results[1].peer.relay_id == there.relay_id


async def test_every_address_is_tried():
    async with Linked() as here, parties(1) as (there,):
        two = endpoint("[::1]:9", str(there.address))
        channel = await here.links.get(there.relay_id, two)
        assert here.driver.remote(channel) == there.address


async def test_the_last_address_says_why_there_is_no_link():
    async with Linked() as here, parties(1) as (there,):
        with pytest.raises(NetworkError, match=r"cannot reach \[::1\]:9"):
            await here.links.get(there.relay_id, endpoint("127.0.0.1:9", "[::1]:9"))


async def test_a_relay_without_tls_cannot_be_dialled():
    async with Linked() as here, parties(1) as (there,):
        quic = Endpoint.at(Transport.QUIC, there.address)
        with pytest.raises(NetworkError, match="no address for TLS"):
            await dial_relay(here.driver, there.relay_id, quic, here.handshake, LinkPurpose.RELAY)


async def test_a_dial_that_is_given_up_by_all_leaves_no_link():
    async with mute_listener() as (mute, links), Linked() as here:
        there = Endpoint.at(Transport.TLS, mute.addresses[0])
        waiting = [asyncio.create_task(here.links.get(here.relay_id, there)) for _ in range(3)]
        await until(lambda: links and here.ports)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await all_gone(here)
        assert len(links) == 1
        assert list(here.links) == []
