"""Whatever is changed in a BUILD message, wherever on its way: the next honest hop does not open it."""

import pytest

from onionrelay.base.errors import BuildUnopenable
from onionrelay.base.limits import BUILD, RECORD, SLOTS
from tests.crypto.path import Path, messages_of
from tests.crypto.test_onion_keys import LOW_ORDER

HOPS = 3


@pytest.mark.parametrize("hop", range(HOPS))
def test_every_byte_counts_at_every_hop(hop):
    path = Path(HOPS)
    message = bytearray(messages_of(path)[hop])
    for place in range(BUILD):
        message[place] ^= 1 << place % 8
        with pytest.raises(BuildUnopenable):
            path.open(hop, bytes(message))
        message[place] ^= 1 << place % 8
    path.open(hop, bytes(message))


def slots_of(message):
    return [message[start : start + RECORD] for start in range(0, BUILD, RECORD)]


@pytest.mark.parametrize("hop", range(HOPS))
def test_slots_cannot_be_moved_repeated_or_blanked(hop):
    path = Path(HOPS)
    slots = slots_of(messages_of(path)[hop])
    changed = [slots[:1] + slots[1:][::-1], slots[1:] + slots[:1]]
    for place in range(1, SLOTS):
        changed += [
            [*slots[:place], slots[place - 1], *slots[place + 1 :]],
            [*slots[:place], bytes(RECORD), *slots[place + 1 :]],
        ]
    for other in changed:
        with pytest.raises(BuildUnopenable):
            path.open(hop, b"".join(other))


def test_a_record_cannot_be_put_before_other_slots():
    """The records of two builds for the same hop, with each other's remainder."""
    path = Path(2)
    one, two = path.seal(), path.new_sealer().seal(path.plaintexts)
    for message in (one[:RECORD] + two[RECORD:], two[:RECORD] + one[RECORD:]):
        with pytest.raises(BuildUnopenable):
            path.open(0, message)


def test_an_honest_hop_stops_what_two_colluders_agreed_on():
    """Hops 0 and 2 collude: what hop 0 changes, in any slot, hop 2 never gets to see, because hop 1 opens nothing."""
    path = Path(HOPS)
    onward = path.open(0, path.seal()).onward
    for slot in range(SLOTS):
        tagged = bytearray(onward)
        tagged[slot * RECORD + 77] ^= 0x80
        with pytest.raises(BuildUnopenable):
            path.open(1, bytes(tagged))


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:6] + point.hex()[-2:])
def test_an_ephemeral_key_of_low_order_does_not_open(point):
    path = Path(1)
    with pytest.raises(BuildUnopenable):
        path.open(0, point + path.seal()[32:])


def test_another_hops_message_does_not_open():
    path = Path(HOPS)
    messages = messages_of(path)
    for hop in range(HOPS):
        for other in range(HOPS):
            if other != hop:
                with pytest.raises(BuildUnopenable):
                    path.open(hop, messages[other])
