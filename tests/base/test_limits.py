from onionrelay.base import limits


def test_sizes_fit_together():
    assert limits.BUILD == 7728 == limits.BUILD_CELLS * limits.SMALL_BODY
    assert limits.BUILT == 1104 == limits.SMALL_BODY
    assert limits.RECORD == 32 + limits.ONION_MLKEM_CIPHERTEXT + limits.RECORD_PLAINTEXT + 16
    assert limits.REPLY_SLOT == 32 + limits.REPLY_PLAINTEXT + 16
    assert limits.MAX_HOPS + 1 == limits.SLOTS
    assert limits.LARGE_CELL == 2**14
    assert limits.REACH_RECORD == 1 + 8 + 8 + 8 + 4 + 32 + 32 + 64 + 16 + limits.REACH_PLAINTEXT + 16 + 64
