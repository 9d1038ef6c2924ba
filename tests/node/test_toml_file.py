"""Small TOML files: what is written reads back, and every fault is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onionrelay.base.errors import ConfigError
from onionrelay.node.toml_file import TomlKeys, toml_text

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(text=texts, flag=st.booleans(), items=st.lists(texts))
def test_what_is_written_reads_back(text, flag, items):
    keys = TomlKeys(toml_text({"text": text, "flag": flag, "items": items}, "A comment").encode(), "f.toml")
    assert (keys.text("text"), keys.flag("flag"), keys.texts("items")) == (text, flag, tuple(items))
    keys.finish("text, flag and items")


def test_a_file_reads_as_written_by_hand():
    assert toml_text({"name": 'a "b"', "on": True, "items": ["x"], "none": []}, "Comment") == (
        '# Comment\nname = "a \\"b\\""\non = true\nitems = [\n  "x",\n]\nnone = [\n]\n'
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff", "f.toml is no text file: byte 0 is not UTF-8"),
        (b"name = ", "f.toml is no TOML file: Invalid value"),
        (b"", "f.toml: `name` is missing"),
        (b"name = 1", "f.toml: `name` must be a string"),
        (b"name = 'x'\nflag = 'true'", "f.toml: `flag` must be true or false, without quotes"),
        (b"name = 'x'\nflag = 1", "f.toml: `flag` must be true or false"),
        (b"name = 'x'\nitems = 'a'", r'f.toml: `items` must be a list of strings: \["…", "…"\]'),
        (b"name = 'x'\nitems = ['a', 1]", "f.toml: `items` must be a list of strings"),
        (b"name = 'x'\nnmae = 'y'", "f.toml: `nmae` is no key of this file, which has name, flag and items; remove"),
    ],
)
def test_every_fault_names_file_and_key(data, words):
    with pytest.raises(ConfigError, match=words):
        read(data)


def test_flags_and_lists_may_be_absent():
    assert read(b"name = 'x'") == ("x", False, ())


def read(data):
    keys = TomlKeys(data, "f.toml")
    found = keys.text("name"), keys.flag("flag"), keys.texts("items")
    keys.finish("name, flag and items")
    return found
