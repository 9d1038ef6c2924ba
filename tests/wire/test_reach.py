import msgspec
import pytest

from onionrelay.base.errors import MalformedMessage, UsageError
from onionrelay.base.ids import BlindedKey, RecordKey
from onionrelay.wire.reach import FinalEntry, ReachContents, ReachRecord
from tests.wire.samples import FINAL, NET, POINTS, SAMPLES, SIG

CONTENTS = next(value for value in SAMPLES if isinstance(value, ReachContents))


def test_a_record_grows_part_by_part():
    """The order in which a publisher makes one: certificate, salt, ciphertext, signature."""
    record = ReachRecord(
        net_id=NET, period=3, revision=4, expires=600, blinded=BlindedKey(POINTS[0]), record_key=RecordKey(POINTS[1])
    )
    assert record.cert_part == NET + (3).to_bytes(8) + POINTS[1]
    with pytest.raises(UsageError):
        _ = record.aad
    record = msgspec.structs.replace(record, cert=SIG)
    aad = record.aad
    assert len(aad) == 1 + 8 + 8 + 8 + 4 + 32 + 32 + 64
    record = msgspec.structs.replace(record, salt=bytes(16), ciphertext=bytes([1]) * 3088)
    assert record.aad == aad
    assert record.signed_part == aad + bytes(16) + bytes([1]) * 3088
    record = msgspec.structs.replace(record, signature=SIG)
    assert record.encode() == record.signed_part + SIG
    assert len(record.encode()) == ReachRecord.SIZE == 3325
    assert ReachRecord.decode(record.encode()) == record


def test_up_to_six_finals():
    for count in range(1, 7):
        full = msgspec.structs.replace(CONTENTS, finals=(FINAL,) * count)
        assert len(full.encode()) == 3072
        assert ReachContents.decode(full.encode()) == full
    for count in (0, 7):
        with pytest.raises(MalformedMessage, match=f"{count} finals"):
            ReachContents.decode(msgspec.structs.replace(CONTENTS, finals=(FINAL,) * count).encode())


def test_ticket_keys_are_not_shown():
    assert FinalEntry.decode(FINAL.encode()).k_ticket == FINAL.k_ticket
    for shown in (repr(FINAL), repr(CONTENTS)):
        assert "k_ticket" not in shown
        assert repr(FINAL.k_ticket) not in shown
