"""The home: keys that survive and never show, certificates renewed in time, and a sentence for whatever is wrong."""

import hashlib
import multiprocessing
import stat
from pathlib import Path

import pytest

from onionrelay.base.errors import ConfigError, HomeError, NoNetwork
from onionrelay.base.limits import SIGNING_CERT_LIFE, SIGNING_CERT_RENEW
from onionrelay.core.link.identity import check_signing_cert
from onionrelay.net.system import SystemRng
from onionrelay.node.home import Home, MemoryHome, home_path, resolve_network, signing_key_due
from onionrelay.node.network_file import NetworkFile
from tests.seeded import SeededRng

NOW = 1_800_000_123
NET, OTHER = b"network1", b"network2"
LISTEN = ["tls://127.0.0.1:9001"]


@pytest.fixture
def rng():
    return SeededRng(3)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture(params=["folder", "memory"])
def any_home(request, tmp_path):
    return Home(tmp_path / "home") if request.param == "folder" else MemoryHome()


def path(home: Home, name: str) -> Path:
    return Path(home.where) / name


def test_keys_are_made_once_and_kept(any_home, rng):
    node = any_home.make_node_secret(rng)
    invite = any_home.init_relay(LISTEN, [], rng)
    assert any_home.make_node_secret(rng).seed == any_home.node_secret().seed == node.seed
    assert invite.relay_id == any_home.relay_identity(rng, NOW).relay_id
    assert invite.endpoint == any_home.relay_settings().endpoint
    assert invite.relay_id.raw != node.public


def test_a_relay_is_never_made_over_another(any_home, rng):
    before = any_home.init_relay(LISTEN, [], rng)
    with pytest.raises(ConfigError, match=r"there is a relay in .* already: edit its relay.toml"):
        any_home.init_relay(["tls://127.0.0.1:9002"], [], rng)
    assert any_home.relay_settings().endpoint == before.endpoint


def test_nothing_is_made_of_settings_that_cannot_be(home, rng):
    with pytest.raises(ConfigError, match=r"nobody can dial tls://0.0.0.0:443"):
        home.init_relay(["tls://0.0.0.0:443"], [], rng)
    assert not Path(home.where).exists()


def test_a_key_file_is_one_line_that_says_what_it_is(home, rng):
    secret = home.make_node_secret(rng)
    file = path(home, "node.key")
    line = f"onionrelay-node-key 1 {secret.seed.hex()}"
    assert file.read_text() == f"{line} {hashlib.sha256(line.encode()).hexdigest()[:8]}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(home.where).stat().st_mode) == 0o700


def make_key(where: Path, found: "multiprocessing.Queue[bytes]") -> None:
    found.put(Home(where).make_node_secret(SystemRng()).seed)


def test_processes_that_make_a_key_at_once_agree(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    found = spawn.Queue()
    workers = [spawn.Process(target=make_key, args=(tmp_path / "home", found)) for _ in range(4)]
    for worker in workers:
        worker.start()
    seeds = {found.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert seeds == {Home(tmp_path / "home").node_secret().seed}


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda home: home.node_secret(), "node.key: `onionrelay listen --home {home}` makes one"),
        (lambda home: home.relay_settings(), "relay.toml: `onionrelay relay init --home {home} --listen"),
        (lambda home: home.relay_identity(SeededRng(1), NOW), "relay.key: `onionrelay relay init --home {home}"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(home, ask, words):
    with pytest.raises(HomeError) as caught:
        ask(home)
    assert f"there is no {home.where}/" in str(caught.value)
    assert words.format(home=home.where) in str(caught.value)
    assert not Path(home.where).exists()


def test_every_truncation_and_every_changed_byte_of_a_key_is_noticed_and_never_quoted(home, rng):
    seed = home.make_node_secret(rng).seed
    file = path(home, "node.key")
    good = file.read_bytes()
    damaged = [good[:size] for size in range(len(good) - 1)]
    damaged += [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(len(good))]
    for data in damaged:
        file.write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            home.node_secret()
        assert str(file) in str(caught.value)
        assert seed.hex()[:16] not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_key_of_another_kind_is_refused(home, rng):
    home.make_node_secret(rng)
    home.init_relay(LISTEN, [], rng)
    path(home, "relay.key").write_bytes(path(home, "node.key").read_bytes())
    with pytest.raises(ConfigError, match="holds no onionrelay-relay-key"):
        home.relay_identity(rng, NOW)


def test_a_key_of_a_later_version_is_refused(home, rng):
    home.make_node_secret(rng)
    line = path(home, "node.key").read_text().replace(" 1 ", " 2 ")
    path(home, "node.key").write_text(line)
    with pytest.raises(ConfigError, match="of a version that this program does not know"):
        home.node_secret()


def test_a_key_that_others_can_read_is_refused(home, rng):
    home.make_node_secret(rng)
    path(home, "node.key").chmod(0o644)
    for ask in (home.node_secret, lambda: home.make_node_secret(rng)):
        with pytest.raises(HomeError, match=f"chmod 600 {path(home, 'node.key')}"):
            ask()


def test_a_damaged_key_is_never_replaced(home, rng):
    home.make_node_secret(rng)
    path(home, "node.key").write_text("onionrelay-node-key 1 00 00000000\n")
    with pytest.raises(ConfigError):
        home.make_node_secret(rng)
    assert path(home, "node.key").read_text().endswith(" 00 00000000\n")


def test_the_signing_key_is_certified_by_the_relay_id(any_home, rng):
    relay_id = any_home.init_relay(LISTEN, [], rng).relay_id
    identity = any_home.relay_identity(rng, NOW)
    cert = identity.signing_cert
    assert identity.relay_id == relay_id
    assert cert.signing_key.raw == identity.signing_secret.public
    check_signing_cert(relay_id, cert)
    assert cert.not_after % 600 == 0
    assert SIGNING_CERT_LIFE - 600 < cert.not_after - NOW <= SIGNING_CERT_LIFE


def test_the_signing_key_is_replaced_when_due_and_not_before(any_home, rng):
    any_home.init_relay(LISTEN, [], rng)
    first = any_home.relay_identity(rng, NOW)
    due = signing_key_due(first)
    assert SIGNING_CERT_RENEW - 600 < due - NOW <= SIGNING_CERT_RENEW
    assert any_home.relay_identity(rng, due - 1).signing_secret.seed == first.signing_secret.seed
    second = any_home.relay_identity(rng, due)
    assert second.signing_secret.seed != first.signing_secret.seed
    assert signing_key_due(second) > due
    assert any_home.relay_identity(rng, due).signing_secret.seed == second.signing_secret.seed
    assert any_home.notices == MemoryHome().notices if isinstance(any_home, MemoryHome) else not any_home.notices


@pytest.mark.parametrize("damage", ["truncated", "another relay's", "another key's certificate"])
def test_a_damaged_signing_key_is_set_aside_and_made_anew(tmp_path, home, rng, damage):
    home.init_relay(LISTEN, [], rng)
    before = home.relay_identity(rng, NOW)
    file = path(home, "signing.key")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "another relay's":
        other = Home(tmp_path / "other")
        other.init_relay(LISTEN, [], rng)
        other.relay_identity(rng, NOW)
        file.write_bytes(path(other, "signing.key").read_bytes())
    else:
        words = file.read_text().split()
        words[2] = rng.token(32).hex()
        line = " ".join(words[:-1])
        file.write_text(f"{line} {hashlib.sha256(line.encode()).hexdigest()[:8]}\n")
    after = home.relay_identity(rng, NOW)
    assert after.signing_secret.seed != before.signing_secret.seed
    check_signing_cert(after.relay_id, after.signing_cert)
    assert len(home.notices) == 1
    assert f"{file}.corrupt-1" in home.notices[0]
    assert path(home, "signing.key.corrupt-1").exists()


def test_secrets_do_not_show(any_home, rng):
    any_home.init_relay(LISTEN, [], rng)
    node, identity = any_home.make_node_secret(rng), any_home.relay_identity(rng, NOW)
    shown = repr([any_home, node, identity, any_home.relay_settings()])
    for seed in (node.seed, identity.signing_secret.seed):
        assert seed.hex()[:16] not in shown
        assert repr(seed)[2:12] not in shown


def test_guards_and_table_are_kept_for_each_network_apart(any_home):
    assert any_home.load_guards(NET, str) is None
    assert any_home.load_table(NET) is None
    any_home.save_guards(NET, "guards ☕")
    any_home.save_table(NET, b"\x00table")
    assert any_home.load_guards(NET, str.upper) == "GUARDS ☕"
    assert any_home.load_table(NET) == b"\x00table"
    assert any_home.load_guards(OTHER, str) is None
    assert any_home.load_table(OTHER) is None


@pytest.mark.parametrize("data", [b"\xff", b"not a number"])
def test_damaged_guards_are_set_aside_with_a_notice(home, data):
    home.save_guards(NET, "1")
    file = path(home, f"{NET.hex()}/guards.json")
    file.write_bytes(data)
    assert home.load_guards(NET, int) is None
    assert len(home.notices) == 1
    assert home.notices[0].startswith(f"chose guards anew: {file} is damaged")
    assert file.with_name("guards.json.corrupt-1").read_bytes() == data
    assert home.load_guards(NET, int) is None
    assert len(home.notices) == 1


def test_a_network_is_joined_and_another_one_replaces_it(any_home, rng):
    invite = any_home.init_relay(LISTEN, [], rng)
    first, second = (NetworkFile.create(name, (invite,), testnet=True, rng=rng) for name in "ab")
    assert any_home.network() is None
    any_home.join(first)
    assert any_home.network() == first
    any_home.join(second)
    assert any_home.network() == second


def test_a_damaged_joined_network_is_named(home):
    Path(home.where).mkdir()
    path(home, "network.toml").write_text("name = 1")
    with pytest.raises(ConfigError, match=f"{home.where}/network.toml: `name` must be a string"):
        home.network()


def test_the_network_is_the_one_named_else_the_environments_else_the_joined_one(home, tmp_path, rng):
    invite = home.init_relay(LISTEN, [], rng)
    option, variable, joined = (NetworkFile.create(name, (invite,), testnet=True, rng=rng) for name in "ovj")
    option.write(tmp_path / "o.toml")
    variable.write(tmp_path / "v.toml")
    environment = {"ONIONRELAY_NETWORK": str(tmp_path / "v.toml")}
    with pytest.raises(NoNetwork) as caught:
        resolve_network(None, {"ONIONRELAY_NETWORK": ""}, home)
    for remedy in (home.where, "onionrelay network join FILE", "--network FILE", "ONIONRELAY_NETWORK"):
        assert remedy in str(caught.value)
    assert resolve_network(None, environment, home) == variable
    home.join(joined)
    assert resolve_network(None, {}, home) == joined
    assert resolve_network(None, environment, home) == variable
    assert resolve_network(tmp_path / "o.toml", environment, home) == option
    with pytest.raises(NoNetwork, match="there is no network file"):
        resolve_network(tmp_path / "none.toml", environment, home)


def test_the_home_is_the_one_named_else_the_environments_else_the_platforms(tmp_path, monkeypatch):
    environment = {"ONIONRELAY_HOME": "/srv/onionrelay"}
    assert home_path(tmp_path, environment) == tmp_path
    assert home_path(None, environment) == Path("/srv/onionrelay")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_path(None, {}).is_relative_to(tmp_path)
    assert home_path(None, {"ONIONRELAY_HOME": ""}).name == "onionrelay"


def test_a_role_of_a_home_runs_once(home, tmp_path):
    with home.hold("relay"), home.hold("target"):
        with (
            pytest.raises(HomeError, match=f"another process runs the relay of {home.where}: stop it"),
            Home(Path(home.where)).hold("relay"),
        ):
            pass
        with Home(tmp_path / "other").hold("relay"):
            pass


def test_a_memory_home_touches_no_file_and_says_what_that_costs(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    home = MemoryHome()
    home.init_relay(LISTEN, [], rng)
    home.make_node_secret(rng)
    home.relay_identity(rng, NOW)
    home.save_guards(NET, "x")
    with home.hold("target"):
        assert list(tmp_path.iterdir()) == []
    assert "new guard" in home.notices[0]
