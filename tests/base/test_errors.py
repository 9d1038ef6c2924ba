import pytest

from onionrelay.base import errors
from onionrelay.base.errors import (
    Attempt,
    BuildUnopenable,
    CircuitFailed,
    CircuitLost,
    DestroyReason,
    MissingPrimitive,
    OnionRelayError,
    ProtocolViolation,
    StreamRefused,
    StreamReset,
    TimedOut,
)

TREE = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


def test_every_error_is_in_the_one_tree_and_explains_itself():
    assert len(TREE) > 10
    for error in TREE:
        assert issubclass(error, OnionRelayError)
        assert error.__doc__


def test_the_drawing_shows_the_tree():
    for error in TREE:
        assert error.__name__ in errors.__doc__


def test_a_violation_carries_the_reason_for_the_wire():
    assert ProtocolViolation("x").reason is DestroyReason.PROTOCOL
    assert BuildUnopenable("x").reason is DestroyReason.UNOPENABLE


def test_builtin_families():
    for error, family in (
        (errors.UsageError, ValueError),
        (errors.HomeError, OSError),
        (errors.NetworkError, OSError),
        (MissingPrimitive, ImportError),
    ):
        with pytest.raises(family):
            raise error("x")
    with pytest.raises(TimeoutError, match=r"dialling took longer than 1\.5 s"):
        raise TimedOut("dialling", 1.5)


def test_a_failed_circuit_names_its_attempts():
    failed = CircuitFailed(
        "no circuit", [Attempt(2, "onrr1qa", "middle", "silent"), Attempt(0, "onrr1qb", "path", "slow")]
    )
    assert str(failed) == "no circuit; hop 2 (middle onrr1qa): silent; path onrr1qb: slow"
    assert (failed.hop, failed.reason) == (0, "slow")
    assert CircuitFailed("no path").reason == "no path"


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (CircuitLost, ConnectionResetError),
        (StreamRefused, ConnectionRefusedError),
        (StreamReset, ConnectionResetError),
    ],
)
def test_lost_and_refused_are_what_socket_code_expects(error, family):
    with pytest.raises(family, match="the reason") as caught:
        raise error("the reason")
    assert caught.value.reason == "the reason"


@pytest.mark.parametrize("error", [StreamRefused, StreamReset])
def test_a_peers_answer_is_a_sentence_and_its_code_a_name(error):
    refusal = error("the node does not allow this", "NOT_ALLOWED")
    assert (str(refusal), refusal.reason) == ("the node does not allow this", "NOT_ALLOWED")


def test_whatever_can_go_wrong_on_the_way_is_an_oserror_without_a_number():
    for error in TREE:
        if issubclass(error, errors.NetworkError):
            assert issubclass(error, OSError)
    failed = errors.LinkRefused("busy", b"an answer")
    assert (str(failed), failed.errno, failed.answer) == ("link refused: busy", None, b"an answer")
    assert str(errors.NodeNotFound("no relay knows it")) == "no relay knows it"
