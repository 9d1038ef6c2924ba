"""The driver: links over loopback, effects to those who wait for them."""

import asyncio
import contextlib
import socket

import pytest

from onionrelay.base.errors import DestroyReason, NetworkError, TimedOut
from onionrelay.base.limits import LARGE_DATA
from onionrelay.core.link.channel import LinkPurpose
from onionrelay.node import driver as driver_module
from onionrelay.testing.overlay import until
from onionrelay.wire.address import Address
from onionrelay.wire.build import BuildStatus
from onionrelay.wire.cell import Cmd
from onionrelay.wire.relay import RelayCmd
from tests.node.parties import Party, all_gone, mute_listener, parties, plan, stop_reading


class Listener:
    """Whom the driver tells about one circuit."""

    def __init__(self):
        self.heard = []

    def on_message(self, hop, cmd, rid, data):
        self.heard.append(("message", hop, cmd, rid, data))

    def on_room(self):
        self.heard.append(("room",))

    def on_ended(self, why):
        self.heard.append(("ended", why))

    def on_opened(self):
        self.heard.append(("opened",))

    def on_refused(self, hop, status, why):
        self.heard.append(("refused", hop, status, why))

    async def until(self, what):
        await until(lambda: any(each[0] == what for each in self.heard), what)

    @property
    def kinds(self):
        return [each[0] for each in self.heard]


async def open_circuit(client, path, listener=None):
    listener = listener or Listener()
    channel = await client.dial(path[0], LinkPurpose.GUARD, anonymous=True)
    return client.driver.open_circuit(channel, plan(*path), listener), listener


# Links


async def test_a_dial_gives_a_link_whose_ends_know_each_other():
    async with parties() as (here, there):
        channel = await here.dial(there)
        await until(lambda: there.ups)
        assert channel.peer.relay_id == there.relay_id
        assert there.ups[0][1].relay_id == here.relay_id
        assert here.ups == [(channel, channel.peer)]
        assert here.driver.remote(channel) == there.address
        assert there.driver.links_from(there.address.group24()) == 1
        assert here.driver.links_from(there.address.group24()) == 0  # dialled, not accepted


async def test_a_link_measures_its_round_trip_as_soon_as_it_is_up():
    async with parties() as (here, there):
        channel = await here.dial(there)
        await until(lambda: channel.rtt is not None)


async def test_control_messages_reach_the_owner():
    async with parties() as (here, there):
        channel = await here.dial(there)
        here.driver.send_control(channel, Cmd.DIR, 1, bytes(3000))
        await until(lambda: there.controls)
        assert there.controls[0][1:] == (Cmd.DIR, 1, bytes(3000))


async def test_an_owner_that_breaks_at_one_effect_is_reported_and_hears_of_the_others():
    reports, heard = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with parties() as (here, there):
        channel = await here.dial(there)

        def on_control(channel, cmd, kind, body):
            heard.append(kind)
            if kind == 1:
                raise ZeroDivisionError

        there.on_control = on_control
        for kind in (1, 2, 3):  # arrive together
            here.engine.send_control(channel, Cmd.DIR, kind, b"")
        here.driver.settle()
        await until(lambda: heard)
        await until(lambda: len(heard) == 3)
        assert heard == [1, 2, 3]
        assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
        assert reports[0]["message"] == "ControlArrived was not dealt with"


async def test_another_relay_than_expected_is_no_link_at_either_end():
    async with parties(3) as (here, there, other):
        with pytest.raises(NetworkError, match="another relay answers"):
            await here.driver.dial(
                there.address, lambda digest: here.handshake(other.relay_id, digest), LinkPurpose.RELAY
            )
        await all_gone(here, there)
        assert here.ups == []


async def test_another_network_is_refused():
    async with Party(b"another!") as stranger, parties(1) as (there,):
        with pytest.raises(NetworkError, match="different networks"):
            await stranger.dial(there)
        await all_gone(stranger, there)


async def test_nobody_at_the_address():
    async with parties() as (here, there):
        address = there.address
        await there.tls.close()
        with pytest.raises(NetworkError, match=f"cannot reach {address}"):
            await here.driver.dial(address, lambda digest: here.handshake(there.relay_id, digest), LinkPurpose.RELAY)


async def test_an_address_that_swallows_everything_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(driver_module, "DIAL_TIMEOUT", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the kernel answers, and nobody else
        address = Address(*silent.getsockname())
        async with parties(1) as (here,):
            with pytest.raises(TimedOut, match=f"the dial to {address}"):
                await here.driver.dial(address, lambda digest: here.handshake(here.relay_id, digest), LinkPurpose.RELAY)
            assert here.ports == []


async def test_a_dial_that_is_cancelled_in_the_handshake_leaves_nothing():
    async with mute_listener() as (mute, links), parties(1) as (here,):
        dial = asyncio.create_task(
            here.driver.dial(mute.addresses[0], lambda digest: here.handshake(here.relay_id, digest), LinkPurpose.RELAY)
        )
        await until(lambda: links and here.ports)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
        await all_gone(here)
        assert here.ups == []


async def test_a_link_that_one_end_closes_goes_at_both_and_each_owner_is_told_once():
    async with parties() as (here, there):
        channel = await here.dial(there)
        await until(lambda: there.ups)
        here.driver.close_link(channel)
        here.driver.close_link(channel)
        await here.driver.wait_down(channel)
        await all_gone(here, there)
        assert [channel for channel, _ in here.downs] == [channel]
        assert len(there.downs) == 1
        await here.driver.wait_down(channel)  # of a link that is gone: at once
        here.driver.send_control(channel, Cmd.DIR, 1, b"")
        here.driver.close_link(channel)


async def test_the_owner_is_told_why_this_end_gave_a_link_up():
    async with parties() as (here, there):
        await here.dial(there)
        await until(lambda: there.ups)
        there.driver.engine.close_link(there.ups[0][0], "the peer has fallen silent")
        there.driver.settle()
        await all_gone(here, there)
        assert [why for _, why in there.downs] == ["the peer has fallen silent"]


async def test_closing_ends_all_links_and_no_new_one_is_made():
    async with parties(3) as (here, *others):
        for other in others:
            await here.dial(other)
        begun = asyncio.create_task(here.dial(others[0]))
        await asyncio.sleep(0)
        await here.driver.aclose()
        assert here.ports == []
        assert here.driver._timer is None or here.driver._timer.cancelled()
        for attempt in (begun, here.dial(others[0])):
            with pytest.raises(NetworkError, match="closing"):
                await attempt
        assert here.ports == []
        await all_gone(*others)


async def test_a_link_that_ends_while_its_dial_is_about_to_return_is_an_error():
    async with parties() as (here, there):
        there.on_link_up = lambda channel, peer: there.driver.close_link(channel)
        with contextlib.suppress(NetworkError):
            channel = await here.dial(there)
            await here.driver.wait_down(channel)
        await all_gone(here, there)
        # Both in one read: the handshake's answer, and then what closes the channel.
        here.on_link_up = lambda channel, peer: here.engine.close_link(channel, "changed its mind")
        there.on_link_up = lambda channel, peer: None
        with pytest.raises(NetworkError, match="lost at once"):
            await here.dial(there)


# Circuits


async def test_a_circuit_through_a_relay_that_dials_on():
    async with parties(3) as (client, relay, last):
        last.listener = listener = Listener()
        origin, opening = await open_circuit(client, [relay, last])
        await until(lambda: relay.wanted)
        hop, relay_id, endpoint = relay.wanted[0]
        assert (relay_id, endpoint) == (last.relay_id, last.endpoint)
        assert opening.heard == []
        relay.driver.offer_next(hop, await relay.dial(last))
        await opening.until("opened")

        origin.send(RelayCmd.DIR_GET, b"question", rid=7)
        client.driver.settle()
        await listener.until("message")
        assert listener.heard == [("message", 0, RelayCmd.DIR_GET, 7, b"question")]
        end = next(iter(last.driver._listeners))
        end.send(RelayCmd.DIR_DATA, b"answer", rid=7)
        last.driver.settle()
        await opening.until("message")
        assert opening.heard[1:] == [("message", 2, RelayCmd.DIR_DATA, 7, b"answer")]

        client.driver.close_circuit(origin)
        await listener.until("ended")
        await until(lambda: not last.engine.circuits and not relay.engine.circuits)
        assert opening.kinds == ["opened", "message"]  # who closes it hears nothing more
        assert not client.driver._listeners
        assert not last.driver._listeners


async def test_a_relay_that_cannot_dial_on_says_so():
    async with parties(3) as (client, relay, last):
        _, opening = await open_circuit(client, [relay, last])
        await until(lambda: relay.wanted)
        relay.driver.refuse_next(relay.wanted[0][0], BuildStatus.NEXT_UNREACHABLE)
        await opening.until("refused")
        assert opening.heard[0][:3] == ("refused", 1, BuildStatus.NEXT_UNREACHABLE)
        assert not client.driver._opening


async def test_an_end_where_nobody_listens_is_closed():
    async with parties() as (client, relay):
        _, opening = await open_circuit(client, [relay])
        await opening.until("ended")
        await until(lambda: not relay.engine.circuits)


async def test_a_lost_link_ends_its_circuits():
    async with parties() as (client, relay):
        relay.listener = listener = Listener()
        _, opening = await open_circuit(client, [relay])
        await opening.until("opened")
        relay.driver.close_link(relay.ups[0][0])
        await asyncio.gather(opening.until("ended"), listener.until("ended"))
        assert opening.heard[-1] == ("ended", "the link to the first hop was lost")


async def test_a_circuit_closed_while_it_is_built_is_heard_of_no_more():
    async with parties(3) as (client, relay, last):
        origin, opening = await open_circuit(client, [relay, last])
        await until(lambda: relay.wanted)
        client.driver.close_circuit(origin)
        await until(lambda: not relay.engine.circuits)
        relay.driver.refuse_next(relay.wanted[0][0], BuildStatus.NEXT_UNREACHABLE)  # too late, and no matter
        assert opening.heard == []
        assert not client.driver._opening


async def test_an_end_is_closed_with_a_reason_and_forgotten():
    async with parties() as (client, relay):
        relay.listener = Listener()
        _, opening = await open_circuit(client, [relay])
        await opening.until("opened")
        (end,) = relay.driver._listeners
        relay.driver.close_circuit(end, DestroyReason.SHUTDOWN)
        await opening.until("ended")
        assert opening.heard[-1] == ("ended", "the first hop ended it (shutdown)")
        assert not relay.driver._listeners
        assert relay.listener.heard == []


async def test_a_link_that_is_gone_takes_no_circuit():
    async with parties() as (client, relay):
        channel = await client.dial(relay, LinkPurpose.GUARD, anonymous=True)
        client.driver.close_link(channel)
        await client.driver.wait_down(channel)
        with pytest.raises(NetworkError, match="the guard's link"):
            client.driver.open_circuit(channel, plan(relay), Listener())


async def test_a_sender_stops_at_a_link_that_is_not_read_and_goes_on_when_it_is():
    async with parties() as (client, relay):
        relay.listener = Listener()
        origin, opening = await open_circuit(client, [relay])
        await opening.until("opened")
        (end,) = relay.driver._listeners
        (port,) = client.ports
        origin._in_session = True  # a client that has not begun a session takes none from its end
        stop_reading(port)
        sent = 0
        while end.can_send(large=True):
            end.send(RelayCmd.SESS, bytes(LARGE_DATA), large=True)
            sent += 1
            relay.driver.settle()
        assert sent < 20
        asyncio.get_running_loop().add_reader(port.link._fd, port.link._on_readable)
        await relay.listener.until("room")
        await until(lambda: opening.kinds.count("message") == sent)


async def test_a_timer_of_the_engine_fires():
    async with parties(3) as (client, relay, last):
        _, opening = await open_circuit(client, [relay, last])
        await until(lambda: relay.wanted)
        (hop, _, _), loop = relay.wanted[0], asyncio.get_running_loop()
        assert relay.driver._timer.when() <= loop.time() + 15
        relay.engine._runtime.wake(hop, 0.01)  # as if the time to dial were up
        relay.driver.settle()
        await opening.until("refused")
        assert opening.heard[0][:3] == ("refused", 1, BuildStatus.NEXT_UNREACHABLE)
