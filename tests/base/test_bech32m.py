import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onionrelay.base import bech32m
from onionrelay.base.errors import InvalidId
from tests.seeded import SeededRng

TEXT = bech32m.encode("onr", [0, *bech32m.to_symbols(bytes(range(32)))])


@settings(max_examples=200, derandomize=True)
@given(st.binary(max_size=40))
def test_bytes_survive_the_change_of_base(data):
    assert bech32m.from_symbols(bech32m.to_symbols(data)) == data


@settings(max_examples=200, derandomize=True)
@given(st.text(max_size=95))
def test_any_text_is_decoded_or_refused_with_the_typed_error(text):
    try:
        hrp, symbols = bech32m.decode(text)
    except InvalidId:
        return
    assert bech32m.encode(hrp, symbols) == text.lower()


def test_upper_case_means_the_same():
    assert bech32m.decode(TEXT.upper()) == bech32m.decode(TEXT)


def test_every_single_substitution_is_refused():
    for place, old in enumerate(TEXT):
        for new in bech32m.ALPHABET + "1b":
            if new != old:
                with pytest.raises(InvalidId):
                    bech32m.decode(TEXT[:place] + new + TEXT[place + 1 :])


def test_double_substitutions_are_refused():
    rng = SeededRng(1)
    data = range(4, len(TEXT))
    for first, second in itertools.combinations(data, 2):
        text = list(TEXT)
        for place in (first, second):
            others = bech32m.ALPHABET.replace(text[place], "")
            text[place] = others[rng.below(len(others))]
        with pytest.raises(InvalidId, match="checksum"):
            bech32m.decode("".join(text))


def test_no_double_substitution_at_all_goes_unnoticed():
    """The checksum is linear: two errors cancel exactly when their single effects are equal, so all 1.8 million pairs
    are refused when the effects of all single errors differ.
    """
    size = len(TEXT) - 4
    effects = set()
    for place in range(size):
        for error in range(1, 32):
            word = [0] * size
            word[place] = error
            effects.add(bech32m._polymod(word) ^ bech32m._polymod([0] * size))
    assert len(effects) == size * 31
    assert 0 not in effects


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEXT[:10] + TEXT[10:].upper(), "mixes upper and lower case"),
        (TEXT[4:], "prefix and its 1 are missing"),
        (TEXT[3:], "prefix and its 1 are missing"),
        ("", "prefix and its 1 are missing"),
        (TEXT[:20] + "b" + TEXT[21:], "'b' does not occur"),
        (TEXT[:20] + "\u0131" + TEXT[21:], "does not occur"),
        ("o r" + TEXT[3:], "printable ASCII"),
        (TEXT + "q" * 30, "shorter than 93"),
        (TEXT[:-1], "checksum"),
        (TEXT + "q", "checksum"),
        ("onr1qqqqq", "checksum"),
    ],
)
def test_each_fault_has_its_own_words(text, says):
    with pytest.raises(InvalidId, match=says):
        bech32m.decode(text)


@pytest.mark.parametrize("symbols", [[0, 1], [31, 1], [0] * 3, [0]])
def test_a_filling_that_is_not_the_shortest_run_of_zero_bits_is_refused(symbols):
    with pytest.raises(InvalidId, match="fill the last character"):
        bech32m.from_symbols(symbols)
