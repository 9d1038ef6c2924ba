import pytest

from onionrelay.base.errors import MalformedMessage
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import REACH_PLAINTEXT
from onionrelay.crypto.blind import blind_public
from onionrelay.crypto.reach import open_reach, seal_reach
from onionrelay.crypto.signing import SigningSecret
from tests.seeded import SeededRng

RNG = SeededRng(1)
NODE = NodeId(SigningSecret.generate(RNG).public)
OTHER = NodeId(SigningSecret.generate(RNG).public)
PLAINTEXT = RNG.token(REACH_PLAINTEXT)
GOOD = {"node_id": NODE, "blinded": blind_public(NODE, 5), "period": 5, "salt": bytes(16), "aad": b"before the salt"}
SEALED = seal_reach(PLAINTEXT, **GOOD)


def test_who_knows_the_id_opens_it():
    assert len(SEALED) == REACH_PLAINTEXT + 16
    assert open_reach(SEALED, **GOOD) == PLAINTEXT


@pytest.mark.parametrize(
    "change",
    [{"node_id": OTHER}, {"blinded": blind_public(NODE, 6)}, {"period": 6}, {"salt": b"\1" * 16}, {"aad": b""}],
    ids=lambda change: next(iter(change)),
)
def test_every_input_counts(change):
    with pytest.raises(MalformedMessage):
        open_reach(SEALED, **GOOD | change)


@pytest.mark.parametrize("sealed", [b"", SEALED[:15], SEALED[:-1], SEALED + b"\0", b"\1" + SEALED[1:]])
def test_altered_contents_do_not_open(sealed):
    with pytest.raises(MalformedMessage, match="do not open"):
        open_reach(sealed, **GOOD)


def test_a_new_salt_is_a_new_key():
    again = seal_reach(PLAINTEXT, **GOOD | {"salt": b"\2" * 16})
    assert sum(a == b for a, b in zip(SEALED, again, strict=True)) < 60
