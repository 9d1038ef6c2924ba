"""No one knows both ends: what the table of specs/08-threat-model.md, 8.3 says, looked up in what every process holds.

A network of 20 relays, the smallest in which all path rules hold; a target that is reached, a client that reaches it,
and half a megabyte of a marker each way. 22 processes, tapped from outside but otherwise the ordinary program. Then
all that each of them can know is searched for all that somebody must not know:

    taps     what its links carried inside TLS, both ways, and what it opened with its own keys
    home     its home folder and its log, at the level that says most
    memory   all it can write to, hence its tables, its reach store, and what it has freed and not overwritten

Each relay has to hold what its roles entitle it to, and nothing else: no more, or somebody learns what he should not;
no less, or the search is blind. Two more pairs of client and target show what it finds: one leaves out the layer that
hides the data from the final hop, in the other the target tells its final hops its node id.

Client and target have loopback addresses of their own. They also have seeds and guards of their own, drawn before: a
relay that happens to be guard to both would know two users' addresses, though not that they have to do with each other.
"""

import asyncio
import sys
from dataclasses import dataclass, field

import pytest

from tests.e2e.both_ends import (
    CLIENT_ADDRESS,
    CLIENTS_GUARD,
    CLIENTS_SEED,
    HANDLE_SECRET,
    NODE_ID,
    NODE_SECRET,
    OWN_IDENTITY,
    RECEIVED,
    RECORD,
    SENT,
    TARGET_ADDRESS,
    TARGETS_GUARD,
    TARGETS_SEED,
    Play,
    blinded_key,
    ciphertext,
    handle_at,
    play_all,
    ticket_key_at,
)

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="reads /proc/<pid>/mem, and needs loopback addresses besides 127.0.0.1"
    ),
    pytest.mark.timeout(240),  # about 20 s on two cores, all of it in the first test's setup
]


def entitled(play: Play, relay: str) -> set[str]:
    """What the threat model lets a relay know, by what it is to this client and this target."""
    knows = {OWN_IDENTITY}
    if relay in play.met_by_client:  # the client's seed and guard
        knows |= {CLIENT_ADDRESS}
    if relay in play.met_by_target:  # the target's seed, guard and final hops
        knows |= {TARGET_ADDRESS}
    if relay in play.finals:
        knows |= {handle_at(relay), ticket_key_at(relay)}
    for period, storers in play.storers.items():
        if relay in storers:
            knows |= {blinded_key(period), ciphertext(period)}
    return knows & play.looked_for  # a vanguard or middle, as such, knows none of this


@dataclass(frozen=True, order=True)
class Finding:
    """A relay holds what it is not entitled to, in these places; or it does not hold what it must, and there are none."""

    relay: str
    what: str
    places: frozenset[str] = field(compare=False)
    roles: tuple[str, ...] = field(compare=False)


def findings(play: Play) -> list[Finding]:
    """The check, the same for the honest pair and for the faulty ones."""
    return sorted(
        Finding(relay, what, found.get(what, frozenset()), play.roles(relay))
        for relay, found in play.relays.items()
        for what in found.keys() ^ entitled(play, relay)
    )


@pytest.fixture(scope="module")
def plays() -> dict[str, Play]:
    return asyncio.run(play_all())


@pytest.fixture
def honest(plays) -> Play:
    return plays["none"]


# The claim


def test_no_relay_knows_both_ends(honest):
    for relay, found in honest.relays.items():
        knows_target = TARGET_ADDRESS in found or NODE_ID in found
        assert not (CLIENT_ADDRESS in found and knows_target), honest.roles(relay)


@pytest.mark.parametrize("secret", [NODE_ID, SENT, RECEIVED, RECORD, NODE_SECRET, HANDLE_SECRET])
def test_no_relay_at_all_knows(secret, honest):
    assert {honest.roles(relay) for relay, found in honest.relays.items() if secret in found} == set()


def test_every_relay_knows_what_its_roles_entitle_it_to_and_nothing_else(honest):
    assert findings(honest) == []


def test_both_ends_dial_their_seed_guard_and_final_hops_and_nobody_else(honest):
    relays = honest.seeds_and_guards
    assert honest.met_by_client == {relays[CLIENTS_SEED], relays[CLIENTS_GUARD]}
    assert honest.path[0] == relays[CLIENTS_GUARD]
    assert honest.met_by_target == {relays[TARGETS_SEED], relays[TARGETS_GUARD], *honest.finals}
    assert honest.path[-1] in honest.finals


def test_neither_end_learns_the_others_address_and_the_client_no_secret(honest):
    assert CLIENT_ADDRESS not in honest.target
    assert not {TARGET_ADDRESS, NODE_SECRET, HANDLE_SECRET} & honest.client.keys()


# The search is not blind


@pytest.mark.parametrize("what", [NODE_ID, SENT, RECEIVED, RECORD])
def test_the_same_search_finds_what_client_and_target_have_in_memory(what, honest):
    assert "memory" in honest.client[what]
    assert "memory" in honest.target[what]


def test_every_relay_was_searched_everywhere(honest):
    for found in honest.relays.values():
        assert found[OWN_IDENTITY] == {"taps", "home", "memory"}


def test_a_circuit_without_the_targets_layer_is_found_out(plays):
    play = plays["no_target_layer"]
    found = findings(play)
    final = play.path[-1]
    assert [(each.relay, each.what) for each in found] == [(final, SENT), (final, RECEIVED)]
    assert all("taps" in each.places for each in found)


def test_a_target_that_tells_its_final_hops_its_node_id_is_found_out(plays):
    play = plays["node_id_in_attach"]
    found = findings(play)
    assert {(each.relay, each.what) for each in found} == {(final, NODE_ID) for final in play.finals}
    assert all("taps" in each.places for each in found)
