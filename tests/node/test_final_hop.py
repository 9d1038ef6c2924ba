"""The final hop's live connection: what is not attached, vouched for, and known by its ticket is never reported open.

Each case is told to the client twice: once in a record that it reads, and checks, as any other; and once behind the
back of its checks, so that the final hop has to refuse on its own.
"""

import contextlib
import dataclasses

import msgspec
import pytest

from onionrelay.base.errors import CircuitFailed, NoPath
from onionrelay.base.ids import HandleKey
from onionrelay.base.limits import VOUCHER_LIFE
from onionrelay.core.attach import schedule
from onionrelay.core.directory.placement import reach_keys, storers
from onionrelay.core.directory.reach import RecordSecret, UsableFinal, next_revision, publish
from onionrelay.crypto.blind import period_at
from onionrelay.crypto.signing import SigningSecret
from onionrelay.net.system import SystemRng
from onionrelay.testing.overlay import LocalOverlay, until
from onionrelay.wire.directory import StoreResult
from onionrelay.wire.reach import FinalEntry
from tests.node.overlays import Clock, ask, attachments, no_circuit_left, target_of
from tests.node.parties import stop_reading

HOPS = 4


class Scene:
    """A network, a target, a client that knows its record, and records made to measure."""

    def __init__(self, overlay, clock, target, client, stack):
        self.overlay, self.clock, self.rng = overlay, clock, SystemRng()
        self.target, self.client, self.stack = target, client, stack
        self.node_id = target.node_id

    async def look(self):
        self.real = await self.client._records.find(self.node_id)
        self.entries = self.real.contents.finals
        self.revision = None
        self.secret = self.target._target.secret
        return self

    async def entry_of_another(self):
        """A final hop of another node that can be reached."""
        other = await self.stack.enter_async_context(target_of(self.overlay))
        return (await self.client._records.find(other.node_id)).contents.finals[0]

    def relay(self, entry):
        """The final hop that an entry names."""
        return self.overlay.relays[self.overlay.index(entry.voucher.final)]

    def address(self, entry):
        return str(self.relay(entry).invite.endpoint.addresses[0])

    def link(self, entry):
        """The final hop's end of the link that the entry's handle is attached by."""
        return self.relay(entry)._finals._by_handle[entry.voucher.handle.raw].channel

    def renew(self, entry):
        """The same attachment with the voucher that its final hop would give now."""
        answer = self.relay(entry)._finals.on_renew(self.link(entry), self.clock())
        return FinalEntry(answer.voucher, entry.k_ticket)

    async def publish(self, *entries):
        """Puts a newer record of the target, with these final hops, with every storer; returns what the client reads."""
        now = self.clock()
        period = period_at(now)
        secret = RecordSecret.certify(self.secret, self.overlay.network.net_id, period, self.rng)
        self.revision = next_revision(period, now, self.revision or self.real.version[1] + 1000)
        contents = msgspec.structs.replace(self.real.contents, finals=entries)
        record = publish(secret, contents, self.revision, now, self.rng)
        for key in reach_keys(self.node_id, period):
            for storer in storers(key, self.client._client.table, now):
                with contextlib.suppress(NoPath):  # the client's guard, which it asks for nothing either
                    assert await self.client._records.put(key, record, storer) is StoreResult.STORED
        return await self.client._records.find(self.node_id, fresh=True)

    def believed(self, *entries):
        """What the client would make of a record with these final hops if it checked none of them."""
        table = self.client._client.table
        usable = (UsableFinal(table.get(each.voucher.final), each.voucher, each.k_ticket) for each in entries)
        return dataclasses.replace(self.real, finals=tuple(usable), rejected=())

    async def open(self, record):
        return await self.client._client.open_to_target(self.node_id, record, HOPS)

    async def fail(self, record):
        """Tries to open a circuit; returns the attempts of the error, once nothing is left of any of them."""
        with pytest.raises(CircuitFailed) as failure:
            await self.open(record)
        text = str(failure.value)
        assert text.startswith("the node cannot be reached, and there is no other path: none of the target's ")
        assert "; hop 4 (final 127.0.0.1:" in text
        await no_circuit_left(self.overlay, self.client, self.target)
        return failure.value.attempts


@pytest.fixture
async def scene():
    clock = Clock()
    async with (
        LocalOverlay(clock=clock) as overlay,
        overlay.node() as client,
        target_of(overlay) as target,
        contextlib.AsyncExitStack() as stack,
    ):
        yield await Scene(overlay, clock, target, client, stack).look()


class Case:
    """`spoil` makes a bad entry of a good one, `strike` does what is done after the client has read the record.

    `client_says`: why the client does not believe the record; None when it cannot know. `final_says`: what the final
    hop answers to a client that does.
    """

    client_says = None
    final_says = "no such handle"

    async def spoil(self, scene, entry):
        return entry

    async def strike(self, scene, entry):
        pass


class LinkCut(Case):
    async def strike(self, scene, entry):
        scene.relay(entry)._driver.close_link(scene.link(entry))


class TargetStopped(Case):
    async def strike(self, scene, entry):
        if scene.target._target._attachments is not None:
            await scene.target._target.aclose()
        await until(
            lambda: not any(scene.relay(each)._finals._by_handle.get(each.voucher.handle.raw) for each in scene.entries)
        )


class TargetAsleep(Case):
    """Its links are up, and nobody reads them."""

    final_says = "next silent"

    async def strike(self, scene, entry):
        channel = scene.target._target._channels[attachments(scene.target)[str(entry.voucher.final)]]
        stop_reading(scene.target._driver._ports[channel])


class VoucherExpired(Case):
    client_says = "voucher expired"

    async def spoil(self, scene, entry):
        scene.clock.shift = VOUCHER_LIFE + 600
        return entry


class VoucherForged(Case):
    """A handle that the final hop never heard of, and a signature that is not its own."""

    client_says = "voucher not signed by this relay"

    async def spoil(self, scene, entry):
        handle = HandleKey(SigningSecret.generate(scene.rng).public)
        forged = msgspec.structs.replace(entry.voucher, handle=handle)
        secret = SigningSecret.generate(scene.rng)
        signature = secret.sign("voucher", forged.signed_part(scene.overlay.network.net_id))
        return FinalEntry(msgspec.structs.replace(forged, signature=signature), entry.k_ticket)


class VoucherOfAnother(Case):
    """What the final hop has signed for another node, and that node's handle; the ticket key is only known to it."""

    final_says = "ticket"

    async def spoil(self, scene, entry):
        return FinalEntry((await scene.entry_of_another()).voucher, entry.k_ticket)


class VoucherAndTicketOfAnother(Case):
    """As if that other node helped: then the final hop rings it, and it cannot open what is sealed to the target."""

    final_says = "next refused"

    async def spoil(self, scene, entry):
        return await scene.entry_of_another()


class WrongTicket(Case):
    final_says = "ticket"

    async def spoil(self, scene, entry):
        return FinalEntry(entry.voucher, scene.rng.token(32))


CASES = [
    LinkCut,
    TargetStopped,
    TargetAsleep,
    VoucherExpired,
    VoucherForged,
    VoucherOfAnother,
    VoucherAndTicketOfAnother,
    WrongTicket,
]


def each(cases):
    return pytest.mark.parametrize("case", [case() for case in cases], ids=[case.__name__ for case in cases])


@each(CASES)
async def test_no_circuit_is_reported_open_and_the_error_names_the_final_hop_and_the_reason(scene, case):
    bad = await case.spoil(scene, scene.entries[0])
    record = await scene.publish(bad)
    await case.strike(scene, bad)
    (attempt,) = await scene.fail(record)
    assert (attempt.role, attempt.relay, attempt.hop) == ("final", scene.address(bad), HOPS)
    if case.client_says:
        assert (attempt.reason, attempt.status) == (case.client_says, "")
    else:
        assert attempt.status == case.final_says  # sealed by the final hop itself
        assert attempt.reason.startswith(f"{case.final_says}: ")


@each([case for case in CASES if case.client_says])
async def test_the_final_hop_refuses_what_a_client_believes(scene, case):
    bad = await case.spoil(scene, scene.entries[0])
    (attempt,) = await scene.fail(scene.believed(bad))
    assert (attempt.role, attempt.relay, attempt.hop) == ("final", scene.address(bad), HOPS)
    assert attempt.status == case.final_says


@each([case for case in CASES if case is not TargetStopped])
async def test_another_final_hop_is_used_when_there_is_one(scene, case):
    bad = await case.spoil(scene, scene.entries[0])
    good = next(each for each in scene.entries[1:] if each.voucher.final != bad.voucher.final)
    good = scene.renew(good)  # as the target does before it publishes
    record = await scene.publish(bad, good)
    await case.strike(scene, bad)
    for _ in range(3):  # either of the two comes first
        circuit = await scene.open(record)
        assert circuit.hops[HOPS - 1].relay_id == str(good.voucher.final)
        assert await circuit.echo(HOPS + 1) > 0  # it is the target that answers
        circuit.close()
    await no_circuit_left(scene.overlay, scene.client, scene.target)


async def test_every_final_hop_that_was_tried_is_named(scene):
    bad = [await WrongTicket().spoil(scene, entry) for entry in scene.entries]
    attempts = await scene.fail(await scene.publish(*bad))
    assert len(attempts) == 3
    assert {attempt.relay for attempt in attempts} == {scene.address(entry) for entry in bad}
    assert {(attempt.role, attempt.hop, attempt.status) for attempt in attempts} == {("final", HOPS, "ticket")}


async def test_the_rate_of_builds_is_used_up_by_those_with_a_ticket_only(scene):
    final = scene.relay(scene.entries[0])
    held = final._finals._by_handle[scene.entries[0].voucher.handle.raw]
    before = held.rings._tokens
    await scene.fail(scene.believed(await WrongTicket().spoil(scene, scene.entries[0])))
    assert held.rings._tokens == before
    (await scene.open(scene.believed(scene.entries[0]))).close()
    assert held.rings._tokens == before - 1


# The same through the library's face


async def test_a_caller_of_a_target_that_has_stopped_is_told_of_every_final_hop(scene):
    await TargetStopped().strike(scene, None)
    with pytest.raises(CircuitFailed) as failure:
        async with scene.client.circuit(scene.node_id):
            pytest.fail("a circuit to nobody")
    attempts = failure.value.attempts
    assert {attempt.relay for attempt in attempts} == {scene.address(entry) for entry in scene.entries}
    assert {(attempt.role, attempt.hop, attempt.status) for attempt in attempts} == {("final", HOPS, "no such handle")}


async def test_a_caller_does_not_notice_that_one_link_was_cut(scene):
    cut = scene.entries[0]
    await LinkCut().strike(scene, cut)
    for _ in range(3):
        async with scene.client.circuit(scene.node_id) as circuit:
            assert circuit.hops[HOPS - 1].relay_id != str(cut.voucher.final)
    await ask(scene.client, scene.target)


async def test_a_caller_who_knows_an_old_record_finds_the_new_final_hops(monkeypatch, scene):
    """All links are cut; the target attaches anew, and the client, whose record is of no more use, looks again."""
    monkeypatch.setattr(schedule, "PUBLISH_PAUSE", 0.1)
    attached, gone = scene.target._target._attachments, attachments(scene.target)
    attached._schedule._earliest = 0.0  # that pause as well
    for entry in scene.entries:
        await LinkCut().strike(scene, entry)
    await until(lambda: not gone.keys() & attachments(scene.target).keys())
    await until(lambda: attached._published == set(attachments(scene.target).values()) and not attached._publishing)
    await ask(scene.client, scene.target)
    assert (await scene.client._records.find(scene.node_id)).version > scene.real.version
