"""The network file: exact round trip, a net id that only the secret decides, one sentence for every fault."""

import hashlib
import stat
from pathlib import Path

import pytest

from onionrelay.base.errors import ConfigError, HomeError, NoNetwork
from onionrelay.base.ids import RelayId
from onionrelay.crypto.signing import SigningSecret
from onionrelay.node.network_file import NetworkFile
from onionrelay.wire.invite import Invite
from tests.seeded import SeededRng

RNG = SeededRng(7)


def invite(*places):
    relay_id = RelayId(SigningSecret.generate(RNG).public)
    return Invite.parse(f"{relay_id}@{','.join(places)}")


PUBLIC = invite("tls://9.9.9.9:443", "tls://[2620:fe::9]:443")
PRIVATE = invite("tls://127.0.0.1:9001")


def network(*seeds, testnet=False, name="home"):
    return NetworkFile.create(name, seeds or (PUBLIC,), testnet, RNG)


@pytest.mark.parametrize("made", [network(), network(PRIVATE, PUBLIC, testnet=True, name='Zoë\'s "own" ☕ \\ net')])
def test_what_is_written_loads_as_the_same_network(tmp_path, made):
    made.write(tmp_path / "n.toml")
    assert NetworkFile.load(tmp_path / "n.toml") == made
    assert stat.S_IMODE((tmp_path / "n.toml").stat().st_mode) == 0o600


def test_the_net_id_depends_on_the_secret_alone():
    first, second = network(name="a"), network(name="a")
    assert first.net_id != second.net_id
    same = NetworkFile("b", (PRIVATE,), testnet=True, secret=first.secret)
    assert same.net_id == first.net_id == hashlib.sha256(b"onionrelay/net/1\x00" + first.secret).digest()[:8]


def test_the_net_id_is_the_one_in_the_specification():
    net_id = NetworkFile("a", (), testnet=True, secret=bytes(32)).net_id.hex()
    assert f"`net_id` is `{net_id}`" in (Path(__file__).parents[2] / "specs" / "11-files.md").read_text()


def test_the_secret_does_not_show():
    made = network()
    assert made.secret.hex() not in repr(made)
    assert repr(made.secret) not in repr(made)
    with pytest.raises(ConfigError) as caught:
        NetworkFile.parse(made.text().replace(made.secret.hex(), made.secret.hex()[:-1]).encode(), "n.toml")
    assert made.secret.hex()[:20] not in str(caught.value)


def test_writing_never_replaces_a_network(tmp_path):
    path = tmp_path / "n.toml"
    network().write(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f"{path} exists already.*name another file"):
        network().write(path)
    assert path.read_bytes() == before


def test_writing_where_it_cannot_be_says_so(tmp_path):
    with pytest.raises(HomeError, match=r"cannot write .*/none/n.toml: No such file or directory"):
        network().write(tmp_path / "none" / "n.toml")


def test_writing_into_a_shared_folder_is_fine(tmp_path):
    tmp_path.chmod(0o777)
    network().write(tmp_path / "n.toml")


def test_a_missing_file_is_no_network_and_says_who_has_it(tmp_path):
    with pytest.raises(NoNetwork, match=rf"no network file {tmp_path}/n.toml: check the path, or ask a member"):
        NetworkFile.load(tmp_path / "n.toml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("secret", "sekret"), "n.toml: `secret` is missing"),
        (lambda t: t + 'mode = "x"\n', "n.toml: `mode` is no key of this file, which has name, secret, testnet and"),
        (lambda t: t.replace("testnet = false", 'testnet = "no"'), "n.toml: `testnet` must be true or false"),
        (lambda t: t.replace('name = "home"', 'name = ""'), "n.toml: `name` must be 1 to 64 printable characters"),
        (lambda t: t.replace('"home"', f'"{"x" * 65}"'), "n.toml: `name` must be 1 to 64 printable characters"),
        (lambda t: t.replace('"home"', '"a\\u001b[2J"'), "n.toml: `name` must be 1 to 64 printable characters"),
        (lambda t: t.replace('secret = "', 'secret = "0'), "n.toml: `secret` must be 64 hex digits: get the file anew"),
        (lambda t: t.replace('secret = "', 'secret = " '), "n.toml: `secret` must be 64 hex digits"),
        (lambda t: t.replace(str(PUBLIC), ""), "n.toml: `seeds` entry 1 is no invite"),
        (lambda t: t.replace("onrr1", "onr1"), "n.toml: `seeds` entry 1 is no invite"),
        (lambda t: t.replace("9.9.9.9", "dns.example"), "n.toml: `seeds` entry 1 is no invite.*host names"),
        (lambda t: t.replace(f'"{PUBLIC}",', ""), "n.toml: `seeds` must name 1 to 64 relays, not 0; `onionrelay relay"),
        (lambda t: t.replace(f'"{PUBLIC}",', f'"{PUBLIC}", "{PUBLIC}"'), f"names the relay {PUBLIC.relay_id} twice"),
        (lambda t: t.replace(str(PUBLIC), str(PRIVATE)), "n.toml: `seeds` holds 127.0.0.1:9001, which is no public"),
        (lambda t: t.replace("= false", "= "), "n.toml is no TOML file"),
    ],
)
def test_every_fault_is_one_sentence_that_names_file_and_key(change, words):
    text = network().text()
    with pytest.raises(ConfigError, match=words) as caught:
        NetworkFile.parse(change(text).encode(), "n.toml")
    assert change(text) != text
    assert "\n" not in str(caught.value)


def test_testnet_is_false_unless_said():
    text = network().text()
    assert NetworkFile.parse(text.replace("testnet = false\n", "").encode(), "n.toml").testnet is False


def test_every_truncation_is_noticed():
    data = network().text().encode()
    end = data.rindex(b"]")
    for size in range(end + 1):
        with pytest.raises(ConfigError):
            NetworkFile.parse(data[:size], "n.toml")


def test_creating_checks_the_same():
    with pytest.raises(ConfigError, match="must name 1 to 64 relays, not 0"):
        NetworkFile.create("n", (), testnet=False, rng=RNG)
    with pytest.raises(ConfigError, match=r"127.0.0.1:9001, which is no public address"):
        network(PRIVATE)
    with pytest.raises(ConfigError, match="network name must be"):
        network(name=" x")
    with pytest.raises(ConfigError, match="1 to 64 relays, not 65"):
        network(*[invite("tls://9.9.9.9:443") for _ in range(65)])
