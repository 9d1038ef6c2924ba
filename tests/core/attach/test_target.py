import itertools

import pytest
from msgspec.structs import replace

from onionrelay.base.ids import HandleKey
from onionrelay.base.limits import (
    ATTACHMENT_LIFE,
    PUBLISH_GATHER,
    REATTACH_WITHIN,
    REPUBLISH,
    VOUCHER_LIFE,
)
from onionrelay.core.attach.target import AttachmentSet
from onionrelay.core.attach.voucher import verify_voucher
from onionrelay.core.path.candidates import Candidates
from onionrelay.core.path.groups import Side
from onionrelay.core.path.policy import PathPolicy
from onionrelay.crypto.signing import SigningSecret
from onionrelay.wire.attach import AttachAccepted, AttachRefusal, AttachRefused, Detach
from tests.core.attach.world import HOME, World
from tests.core.relays import (
    NET,
    NOW,
    POLICY,
    TESTNET,
    Relay,
    bare,
    bare_table,
    grown_table,
    local_relays,
    public_address,
)
from tests.seeded import SeededRng


def finals_of(published):
    _, entries, _ = published
    return {entry.voucher.final for entry in entries}


def test_a_target_attaches_to_three_final_hops_and_publishes_them_once():
    world = World().start().run(5)
    assert len(world.up) == 3
    assert len({each.final.relay_id for each in world.up}) == 3
    assert len({each.handle for each in world.up}) == 3
    assert len(world.published) == 1
    assert finals_of(world.published[0]) == {each.final.relay_id for each in world.up}
    assert world.published[0][0] < 1000 + PUBLISH_GATHER


def test_it_publishes_what_it_has_when_a_final_hop_keeps_it_waiting():
    world = World(local_relays(3))
    world.silent = {local_relays(3)[0].relay_id}
    world.start().run(PUBLISH_GATHER + 1)
    assert len(finals_of(world.published[0])) == 2
    world.silent.clear()
    world.run(40)
    assert len(world.up) == 3
    assert world.closed[0][2] == "no answer"


def test_with_one_final_hop_only_it_makes_do():
    world = World(local_relays(1)).start().run(20)
    assert len(world.up) == 1
    assert [len(finals_of(each)) for each in world.published] == [1]


def test_with_none_it_waits_and_time_passes():
    world = World(local_relays(2))
    world.dead = set(world.relays)
    world.start().run(120)
    assert world.published == []
    assert world.up == []
    assert 2 <= len(world.dials) <= 60
    world.dead.clear()
    world.run(REATTACH_WITHIN)
    assert len(world.up) == 2


def test_a_lost_final_hop_is_replaced_in_time_without_a_new_record():
    world = World().start().run(60)
    world.kill(world.up[0].final.relay_id)
    assert len(world.up) == 2
    world.run(REATTACH_WITHIN)
    assert len(world.up) == 3
    assert not world.dead & {each.final.relay_id for each in world.up}
    assert len(world.published) == 1


def test_when_two_are_lost_the_record_is_published_again():
    world = World().start().run(60)
    for attachment in world.up[:2]:
        world.kill(attachment.final.relay_id)
    world.run(20)
    assert len(world.published) == 2
    assert finals_of(world.published[1]) == {each.final.relay_id for each in world.up}
    assert len(world.up) == 3


def test_a_final_hop_that_failed_is_not_tried_again_soon():
    relays = local_relays(5)
    world = World(relays)
    world.dead = {relay.relay_id for relay in relays[:2]}
    world.start().run(300)
    assert {each.final.relay_id for each in world.up} == {relay.relay_id for relay in relays[2:]}
    tried = [attachment.final.relay_id for _, attachment in world.dials]
    assert all(tried.count(relay_id) <= 1 for relay_id in world.dead)


@pytest.mark.parametrize("seed", range(12))
def test_one_that_failed_a_while_ago_is_no_choice_while_there_are_others(seed):
    world = World(local_relays(6), seed=seed).start().run(60)
    first = world.up[0].final.relay_id
    world.kill(first)
    world.run(REATTACH_WITHIN)
    world.dead.clear()
    world.kill(world.up[0].final.relay_id)
    world.run(REATTACH_WITHIN)
    assert len(world.up) == 3
    assert first not in {each.final.relay_id for each in world.up}


@pytest.mark.parametrize("seed", range(3))
def test_two_days_of_it(seed):
    """Always attached, always published, vouchers always young, every final hop for 12 to 24 hours, and no rush."""
    world = World(seed=seed).start().run(10)
    for _ in range(2 * 24 * 6):
        world.run(600)
        assert 3 <= len(world.up) <= 6
        last, entries, _ = world.published[-1]
        assert world.now - last <= 1.2 * REPUBLISH + 10
        assert len(entries) == 3
        up = {each.handle for each in world.up}
        assert {entry.voucher.handle for entry in entries} <= up
        for entry in entries:
            final = world.table.get(entry.voucher.final)
            verify_voucher(entry.voucher, final, world.unix_now, TESTNET)
            assert entry.voucher.not_after - (NOW + last - 1000) > 1.2 * REPUBLISH
    low, high = ATTACHMENT_LIFE
    assert all(low <= life <= high for life in world.lives.values())
    assert len(world.lives) >= 6
    assert {why for _, _, why in world.closed} == {"its time is over"}
    for closed, attachment, _ in world.closed:
        begun = next(now for now, each in world.dials if each is attachment)
        assert abs(closed - begun - world.lives[attachment]) < 2
    assert 40 <= len(world.published) <= 64


def test_a_publication_that_nobody_stored_is_tried_again():
    world = World(stored=False).start().run(100)
    gaps = [after - before for (before, *_), (after, *_) in itertools.pairwise(world.published)]
    assert gaps == pytest.approx([10, 20, 40], abs=2)
    world.stored = True
    world.run(200)
    assert len(world.published) == 5


def test_stopping_detaches_everywhere():
    world = World().start().run(5)
    before = list(world.up)
    effects = world.set.stop()
    assert [effect.attachment for effect in effects if isinstance(getattr(effect, "message", None), Detach)] == before
    world.apply(effects)
    assert world.set.attachments == ()
    assert world.set.deadline is None
    world.run(30)
    assert all(len(final) == 0 for final in world.finals.values())


# Answers


def attaching():
    """A set with one attachment that waits for its voucher."""
    world = World(local_relays(1)).start().run(0.08)
    return world, world.set.attachments[0]


def test_a_refusal_ends_the_attempt():
    world, attachment = attaching()
    world.answer(attachment, AttachRefused(AttachRefusal.TOO_MANY))
    assert [(each, why) for _, each, why in world.closed] == [(attachment, "refused: too many")]
    assert world.set.attachments == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"handle": HandleKey(SigningSecret(bytes(32)).public)}, "voucher for another handle"),
        ({"signature": bytes(64)}, "voucher not signed by this relay"),
        ({"final": Relay("x", "127.0.0.1:1").relay_id}, "voucher names another relay"),
        ({"not_before": NOW - VOUCHER_LIFE, "not_after": NOW}, "voucher expired"),
    ],
)
def test_a_voucher_that_does_not_hold_ends_the_attempt_with_the_reason(change, why):
    world, attachment = attaching()
    message = attachment.attach(bytes(32))
    final = world.finals[attachment.final.relay_id]
    good = final.on_attach("x", HOME, message, bytes(32), unix_now=NOW, now=0).voucher
    world.answer(attachment, AttachAccepted(replace(good, **change)))
    assert [reason for _, _, reason in world.closed] == [why]


def test_a_voucher_nobody_asked_for_ends_the_attachment():
    world = World(local_relays(1)).start().run(5)
    (attachment,) = world.up
    world.answer(attachment, AttachAccepted(attachment.voucher))
    assert [why for _, _, why in world.closed] == ["a voucher that was not asked for"]


def test_what_comes_after_the_end_changes_nothing():
    world, attachment = attaching()
    world.apply(world.set.on_link_lost(attachment, world.now, world.unix_now))
    assert world.set.on_message(attachment, AttachRefused(AttachRefusal.BUSY), world.now, world.unix_now) == []
    assert world.set.on_link_lost(attachment, world.now, world.unix_now) == []


def test_a_ticket_key_does_not_show():
    world = World(local_relays(1)).start().run(5)
    (attachment,) = world.up
    assert repr(attachment.entry.k_ticket) not in repr(attachment) + repr(attachment.entry) + repr(world.published)


# Which final hops


def picked(table, policy=POLICY, seed=0, count=3):
    attachments = AttachmentSet(SeededRng(seed), count)
    attachments.on_candidates(Candidates.of(table, policy, NOW), 0.0, NOW)
    return [each.final for each in attachments.attachments]


@pytest.mark.parametrize("seed", range(20))
def test_final_hops_stand_on_the_far_side_in_groups_of_their_own(seed):
    finals = picked(grown_table(40, 3), seed=seed)
    assert len(finals) == 3
    assert {final.side for final in finals} == {Side.FAR}
    assert len({final.group for final in finals}) == 3


def test_a_small_network_has_them_on_the_far_side_as_far_as_there_is_one():
    entries = list(grown_table(40))
    far = [entry for entry in entries if entry.side is Side.FAR][:2]
    near = [entry for entry in entries if entry.side is Side.NEAR][:7]
    for seed in range(20):
        finals = picked(bare_table(far + near), seed=seed)
        assert {entry.relay_id for entry in far} <= {final.relay_id for final in finals}
        assert len(finals) == 3


def test_a_process_does_not_attach_to_its_own_relay():
    entries = [bare(f"r{n}", public_address(n)) for n in range(9)]
    policy = PathPolicy(NET, own_relay=entries[0].relay_id)
    for seed in range(30):
        assert entries[0] not in picked(bare_table(entries), policy, seed)


def test_a_thousand_relays_of_one_group_are_one_choice():
    """n = 2,000 sets of 3 of about 20 far-side groups: the crowd's group is in one of them with probability near 3/20."""
    crowd_group = next(e for e in grown_table(60) if e.side is Side.FAR)
    number = int(crowd_group.descriptor.endpoint.ipv4.host.split(".")[1])
    crowd = [bare(f"crowd {n}", public_address(number, n + 5)) for n in range(1000)]
    table = bare_table([*grown_table(60), *crowd])
    candidates = Candidates.of(table, POLICY, NOW)
    groups = candidates.finals.group_count
    hits = 0
    for seed in range(2000):
        attachments = AttachmentSet(SeededRng(seed), 3)
        attachments.on_candidates(candidates, 0.0, NOW)
        hits += any(each.final.group == crowd_group.group for each in attachments.attachments)
    expected = 3 / groups
    deviation = (expected * (1 - expected) / 2000) ** 0.5
    assert abs(hits / 2000 - expected) < 3.9 * deviation
    by_node = 1 - (1 - 1000 / (1000 + groups)) ** 3
    assert abs(by_node - expected) > 3.9 * deviation, "the control: choosing by node would be noticed"
