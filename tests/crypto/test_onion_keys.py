import importlib.util
import sys

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from onionrelay.base.errors import MalformedMessage, MissingPrimitive, UsageError
from onionrelay.crypto import onion_keys
from onionrelay.crypto.onion_keys import OnionPublic, OnionSecret
from tests.seeded import SeededRng

SECRET = OnionSecret.generate(SeededRng(1))
PUBLIC = SECRET.public
P = 2**255 - 19
ORDER_8 = (
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
)
LOW_ORDER = [
    point.to_bytes(32, "little")
    for low in (0, 1, P - 1, P, P + 1, *(int.from_bytes(bytes.fromhex(text), "little") for text in ORDER_8))
    for point in (low, low | 1 << 255)
]


def test_encapsulation_opens_to_the_same_secrets():
    secret, ciphertext = PUBLIC.encapsulate()
    other = OnionSecret.generate(SeededRng(2))
    kem, static = SECRET.open(other.public.x25519, ciphertext)
    assert kem == secret
    assert static == other.open(PUBLIC.x25519, other.public.encapsulate()[1])[1]


def test_a_flipped_ciphertext_opens_to_another_secret_without_an_error():
    secret, ciphertext = PUBLIC.encapsulate()
    flipped = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    kem, _ = SECRET.open(PUBLIC.x25519, flipped)
    assert len(kem) == 32
    assert kem != secret
    assert SECRET.open(PUBLIC.x25519, flipped)[0] == kem


def test_generate_follows_the_rng():
    assert OnionSecret.generate(SeededRng(1)).public == PUBLIC
    assert OnionSecret.generate(SeededRng(2)).public != PUBLIC


def test_decode_accepts_own_keys():
    again = OnionPublic.decode(memoryview(PUBLIC.x25519), memoryview(PUBLIC.mlkem))
    assert again == PUBLIC
    assert hash(again) == hash(PUBLIC)
    assert again.digest == PUBLIC.digest != OnionSecret.generate(SeededRng(3)).public.digest


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:6] + point.hex()[-2:])
def test_an_x25519_point_of_low_order_is_refused(point):
    with pytest.raises(MalformedMessage, match="low order"):
        OnionPublic.decode(point, PUBLIC.mlkem)
    with pytest.raises(ValueError, match="shared key"):
        SECRET.open(point, PUBLIC.encapsulate()[1])


@pytest.mark.parametrize(("x25519", "mlkem"), [(31, 1184), (33, 1184), (32, 1183), (32, 1185), (0, 0), (32, 800)])
def test_keys_of_the_wrong_length_are_refused(x25519, mlkem):
    with pytest.raises(MalformedMessage, match="wrong length"):
        OnionPublic.decode((PUBLIC.x25519 * 2)[:x25519], (PUBLIC.mlkem * 2)[:mlkem])


@pytest.mark.parametrize("place", [0, 600, 1149])
def test_an_ml_kem_coefficient_that_is_not_reduced_is_refused(place):
    unreduced = bytearray(PUBLIC.mlkem)
    unreduced[place : place + 3] = b"\xff\xff\xff"
    with pytest.raises(MalformedMessage, match="outside the field"):
        OnionPublic.decode(PUBLIC.x25519, bytes(unreduced))


@pytest.mark.parametrize("size", [0, 1087, 1089])
def test_a_ciphertext_of_the_wrong_length_is_a_value_error(size):
    with pytest.raises(ValueError, match="ciphertext"):
        SECRET.open(PUBLIC.x25519, bytes(size))


def test_seeds_of_the_wrong_length_are_the_callers_fault():
    for sizes in ((31, 64), (32, 63)):
        with pytest.raises(UsageError):
            OnionSecret(*map(bytes, sizes))


def test_repr_keeps_the_secrets():
    rng = SeededRng(1)
    shown = repr(SECRET)
    assert not any(rng.token(size).hex()[:8] in shown for size in (32, 64))
    assert len(shown) < 80


def load_afresh():
    spec = importlib.util.spec_from_file_location("onion_keys_afresh", onion_keys.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def test_a_cryptography_that_does_not_know_ml_kem_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mlkem", None)
    with pytest.raises(MissingPrimitive, match=r"ML-KEM-768.*cryptography 50"):
        load_afresh()


def test_a_cryptography_built_without_ml_kem_is_named(monkeypatch):
    def unsupported(seed):
        raise UnsupportedAlgorithm("ML-KEM is not supported by this backend")

    monkeypatch.setattr(MLKEM768PrivateKey, "from_seed_bytes", unsupported)
    with pytest.raises(MissingPrimitive, match=r"OpenSSL 3\.5"):
        load_afresh()
