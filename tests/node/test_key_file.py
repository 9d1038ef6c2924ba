"""Key files: what a well-formed line with the wrong parts is refused for."""

import pytest

from onionrelay.base.errors import ConfigError
from onionrelay.node.key_file import check, key_line, read_key_line


def test_parts_read_back():
    data = key_line("onionrelay-x-key", b"\x01" * 4, b"\xff" * 2)
    assert data.startswith(b"onionrelay-x-key 1 01010101 ffff ")
    assert data.count(b"\n") == 1
    assert read_key_line(data, "onionrelay-x-key", (4, 2), "x.key") == [b"\x01" * 4, b"\xff" * 2]


@pytest.mark.parametrize("rest", ["1 0101", "1 01010101 0101", "1", "1 0101010g", "1 0101010"])
def test_intact_check_digits_do_not_excuse_wrong_parts(rest):
    line = f"onionrelay-x-key {rest}"
    with pytest.raises(ConfigError, match="does not hold what belongs into a file of onionrelay-x-key"):
        read_key_line(f"{line} {check(line)}\n".encode(), "onionrelay-x-key", (4,), "x.key")
