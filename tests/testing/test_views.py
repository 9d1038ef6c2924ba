"""What the search for facts takes for one, and what not. Used in earnest by tests/e2e/test_no_one_knows_both_ends.py."""

import socket
import subprocess
import sys

import pytest

from onionrelay.testing.views import Fact, View
from onionrelay.wire.address import Address, Endpoint, Transport

HOST = "127.201.113.77"
PACKED = socket.inet_aton(HOST)
ADDRESS = Fact.of_address("address", HOST)
SECRET = bytes(range(100, 132))


@pytest.mark.parametrize(
    "data",
    [
        f"from {HOST}:4711".encode(),
        Address(HOST, 4711).encode(),
        Endpoint(Transport.TLS, ipv4=Address(HOST, 4711)).encode(),
        socket.AF_INET.to_bytes(2, sys.byteorder) + (4711).to_bytes(2) + PACKED + bytes(8),
    ],
)
def test_an_address_is_found_in_the_forms_that_it_has(data):
    assert ADDRESS.is_in(data)
    assert ADDRESS.is_in(b"\x55" * 100 + data + b"\x55" * 100)


def test_four_bytes_that_happen_to_be_the_same_are_no_address():
    assert not ADDRESS.is_in(PACKED)
    assert not ADDRESS.is_in(b"\x55" * 100 + PACKED + b"\x55" * 100)
    assert not ADDRESS.is_in(Address("127.201.113.78", 4711).encode())


@pytest.mark.parametrize("cut", range(len(SECRET) + 1))
def test_bytes_are_found_wherever_a_cell_boundary_cuts_them(cut):
    assert Fact.of_bytes("secret", SECRET).is_in(b"\x55" * 9 + SECRET[:cut] + b"header" + SECRET[cut:])


def test_bytes_are_not_found_in_half_a_half():
    assert not Fact.of_bytes("secret", SECRET).is_in(SECRET[1:16] + b"header" + SECRET[17:])


HOLDS_WHAT_IT_READS = """
import sys
inverted = sys.stdin.buffer.read(36)
secret = bytes(byte ^ 255 for byte in inverted[:32])
packed = bytes(byte ^ 255 for byte in inverted[32:])
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/<pid>/mem")
def test_a_view_holds_the_memory_of_a_process_and_its_files(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"written on a disk")
    facts = {
        "secret": Fact.of_bytes("secret", SECRET),
        "address": ADDRESS,
        "file": Fact.of_bytes("file", b"written on a disk"),
        "unknown": Fact.of_bytes("unknown", bytes(reversed(SECRET))),
    }
    program = [sys.executable, "-c", HOLDS_WHAT_IT_READS]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(bytes(byte ^ 255 for byte in SECRET + PACKED))
        process.stdin.flush()
        process.stdout.readline()
        found = View(process.pid, home=[tmp_path]).search(facts.values())
    assert found == {"secret": {"memory"}, "address": {"memory"}, "file": {"home"}}
