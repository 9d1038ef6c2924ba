import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onionrelay.base.errors import BuildUnopenable, DestroyReason, ProtocolViolation, UsageError
from onionrelay.base.limits import BUILD, BUILT, RECORD, REPLY_SLOT, SLOTS
from onionrelay.crypto.build import REPLY_BODY, CircuitSealer, open_build
from onionrelay.crypto.onion_keys import OnionPublic, OnionSecret
from tests.crypto.path import NET, Path, messages_of
from tests.seeded import SeededRng

OK = b"\0"


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    hops=st.integers(1, SLOTS),
    seed=st.integers(0, 2**32),
    bodies=st.lists(st.binary(max_size=103), min_size=6, max_size=6),
)
def test_every_hop_opens_its_record_and_the_client_every_reply(hops, seed, bodies):
    path = Path(hops, seed)
    message = path.seal()
    assert len(message) == BUILD
    opened = path.open_all(message)
    assert [hop.plaintext for hop in opened] == path.plaintexts
    assert [hop.ephemeral for hop in opened] == [path.sealer.ephemeral(hop) for hop in range(hops)]
    assert all(len(hop.onward) == BUILD for hop in opened)
    sent = [OK + body for body in bodies[:hops]]
    reply = path.answer(opened, sent)
    assert len(reply) == BUILT
    answers = path.sealer.open_reply(reply)
    assert not answers.garbled
    assert [hop.body for hop in answers.hops] == [body.ljust(REPLY_BODY, b"\0") for body in sent]
    assert [hop.keys for hop in answers.hops] == [hop.keys for hop in opened]


def test_all_keys_of_a_circuit_differ():
    keys = [hop.keys for hop in Path(5).open_all(Path(5).seal())]
    assert all(len(hop.forward) == len(hop.backward) == 112 and len(hop.binding) == 32 for hop in keys)
    pieces = [piece for hop in keys for piece in (hop.forward[:16], hop.backward[:16], hop.binding[:16])]
    assert len(set(pieces)) == 15


def test_two_builds_over_the_same_path_share_nothing():
    path = Path(3)
    first, second = (path.new_sealer().seal(path.plaintexts) for _ in range(2))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < BUILD / 50


def test_the_ephemeral_key_is_known_before_sealing():
    path = Path(2)
    ephemeral = path.sealer.ephemeral(1)
    assert path.open_all(path.seal())[1].ephemeral == ephemeral


def test_the_replay_tag_is_of_the_record_alone():
    path = Path(2)
    message = path.seal()
    assert (
        path.open(0, message).replay_tag
        == path.open(0, message).replay_tag
        == hashlib.sha256(message[:RECORD]).digest()[:16]
    )


def test_the_current_and_the_previous_onion_key_are_tried():
    path = Path(1)
    message = path.seal()
    others = [OnionSecret.generate(path.rng) for _ in range(2)]
    for place in range(3):
        secrets = [*others[:place], path.secrets[0], *others[place:]]
        assert open_build(message, secrets, path.identities[0], NET, path.rng).secret_index == place
    for secrets in (others, []):
        with pytest.raises(BuildUnopenable):
            open_build(message, secrets, path.identities[0], NET, path.rng)


def test_a_build_opens_under_its_identity_and_network_only():
    path = Path(1)
    message = path.seal()
    for identity, net_id in ((bytes(32), NET), (path.identities[0], b"othernet")):
        with pytest.raises(BuildUnopenable):
            open_build(message, path.secrets, identity, net_id, path.rng)


@pytest.mark.parametrize("size", [0, RECORD, BUILD - 1, BUILD + 1])
def test_a_message_of_the_wrong_length_does_not_open(size):
    path = Path(1)
    message = (path.seal() * 2)[:size]
    with pytest.raises(BuildUnopenable, match=f"not {size}") as caught:
        path.open(0, message)
    assert isinstance(caught.value, ProtocolViolation)
    assert caught.value.reason is DestroyReason.UNOPENABLE


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.binary(max_size=BUILD), st.booleans())
def test_any_bytes_are_unopenable(data, full_length):
    with pytest.raises(BuildUnopenable):
        Path(1).open(0, data.ljust(BUILD, b"\0") if full_length else data)


def test_hops_know_neither_length_nor_place():
    """Chi-square over the bytes of slots 1 to 5 at every hop of every length, 255 degrees of freedom.

    ML-KEM's draws cannot be seeded, so alpha is low enough never to be met by chance: 1e-9 for each of 21 streams.
    """
    for hops in range(1, SLOTS + 1):
        tails = [b""] * hops
        for seed in range(8):
            for hop, message in enumerate(messages_of(Path(hops, seed))):
                tails[hop] += message[RECORD:]
        assert max(map(chi_square, tails)) < CHI_SQUARE_LIMIT


def test_unused_slots_of_zeros_would_show():
    """The positive control of the test above."""

    class Zeros(SeededRng):
        def token(self, size):
            return bytes(size) if size > 64 else super().token(size)

    path = Path(2)
    path.sealer = path.new_sealer(Zeros(1))
    assert chi_square(messages_of(path)[1][RECORD:]) > CHI_SQUARE_LIMIT


def chi_square(data):
    expected = len(data) / 256
    return sum((data.count(value) - expected) ** 2 / expected for value in range(256))


def _chi_square_limit(freedom, normal_quantile):
    """Wilson and Hilferty's approximation."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + normal_quantile * math.sqrt(spread)) ** 3


CHI_SQUARE_LIMIT = _chi_square_limit(255, 6.0)


def test_a_refusal_is_the_last_answer_heard():
    for refusing in range(5):
        path = Path(5)
        opened = path.open_all(path.seal(), through=refusing + 1)
        reply = path.answer(opened, [OK] * refusing + [b"\5\7why"])
        answers = path.sealer.open_reply(reply)
        assert not answers.garbled
        assert [hop.body[0] for hop in answers.hops] == [0] * refusing + [5]
        assert answers.hops[-1].body[1:5] == b"\7why"


def test_a_hop_cannot_hide_a_refusal_behind_it_but_can_garble_it():
    """Hop 2 of 3 alters the refusal of hop 3: the client sees a garbled reply, not a success."""
    path = Path(3)
    opened = path.open_all(path.seal())
    refusal = bytearray(opened[2].reply(b"\4", None))
    refusal[40] ^= 1
    reply = opened[0].reply(OK, opened[1].reply(OK, bytes(refusal)))
    answers = path.sealer.open_reply(reply)
    assert (len(answers.hops), answers.garbled) == (2, True)


def test_a_flipped_byte_of_a_slot_garbles_from_there_on():
    path = Path(3)
    reply = path.answer(path.open_all(path.seal()), [OK] * 3)
    for place in range(3 * REPLY_SLOT):
        bad = bytearray(reply)
        bad[place] ^= 1
        answers = path.sealer.open_reply(bytes(bad))
        assert (len(answers.hops), answers.garbled) == (place // REPLY_SLOT, True)
    assert not path.sealer.open_reply(reply).garbled


@pytest.mark.parametrize("low_order", [bytes(32), b"\1" + bytes(31)])
def test_a_reply_with_an_ephemeral_key_of_low_order_is_garbled(low_order):
    path = Path(1)
    reply = path.open_all(path.seal())[0].reply(OK, None)
    answers = path.sealer.open_reply(low_order + reply[32:])
    assert (answers.hops, answers.garbled) == ((), True)


def test_a_reply_without_the_right_confirmation_is_garbled():
    path = Path(1)
    opened = path.open_all(path.seal())[0]
    opened._session.confirmation = bytes(32)
    answers = path.sealer.open_reply(opened.reply(OK, None))
    assert (answers.hops, answers.garbled) == ((), True)


def test_replies_of_another_build_are_garbled():
    path, other = Path(2), Path(2, seed=1)
    path.seal()
    answers = path.sealer.open_reply(other.answer(other.open_all(other.seal()), [OK] * 2))
    assert (answers.hops, answers.garbled) == ((), True)


def test_keys_and_nonces_never_meet_a_second_plaintext():
    path = Path(1)
    opened = path.open(0, path.seal())
    with pytest.raises(UsageError, match="seals once"):
        path.seal()
    opened.reply(OK, None)
    with pytest.raises(UsageError, match="answered once"):
        opened.reply(OK, None)


@pytest.mark.parametrize("hops", [0, 7])
def test_a_path_is_one_to_six_hops(hops):
    with pytest.raises(UsageError, match=f"not {hops}"):
        Path(hops)


def test_misuse_is_the_callers_fault():
    path = Path(2)
    for plaintexts in ([bytes(152)], [bytes(152), bytes(151)], [bytes(152)] * 3):
        with pytest.raises(UsageError):
            path.sealer.seal(plaintexts)
    with pytest.raises(UsageError):
        path.sealer.open_reply(bytes(BUILT))
    opened = path.open_all(path.seal())
    for body, downstream in ((b"", None), (bytes(105), None), (OK, bytes(BUILT - 1))):
        with pytest.raises(UsageError):
            opened[0].reply(body, downstream)
    with pytest.raises(UsageError):
        path.sealer.open_reply(bytes(BUILT + 1))


def test_onion_keys_that_were_never_decoded_are_the_callers_fault():
    good = Path(1).secrets[0].public
    for bad in (OnionPublic(bytes(32), good.mlkem), OnionPublic(good.x25519, b"\xff" * 1184)):
        with pytest.raises(UsageError, match="never decoded"):
            CircuitSealer(NET, [(bytes(32), bad)], SeededRng(1))


def test_repr_keeps_the_secrets():
    path = Path(1)
    opened = path.open(0, path.seal())
    keys = opened.keys
    answer = path.sealer.open_reply(opened.reply(OK, None)).hops[0]
    for shown in map(repr, (opened, keys, answer, path.sealer)):
        for secret in (keys.forward, keys.backward, keys.binding, opened.plaintext):
            assert secret.hex()[:8] not in shown
            assert repr(secret[:4])[2:-1] not in shown
