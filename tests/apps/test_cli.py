"""Every wrong input that needs no network to be recognised: one sentence and the right exit code."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from onionrelay.apps.cli import cli, require_platform
from onionrelay.apps.settings import Settings
from onionrelay.base.errors import OnionRelayError
from onionrelay.base.ids import NodeId, RelayId
from onionrelay.crypto.signing import SigningSecret

KEY = SigningSecret(bytes(range(32))).public
NODE = str(NodeId(KEY))
INVITE = f"{RelayId(KEY)}@tls://127.0.0.1:9001"


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        assert self.err.startswith("onionrelay: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix("onionrelay: ").strip()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ONIONRELAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ONIONRELAY_NETWORK", raising=False)
    return tmp_path / "home"


@pytest.fixture
def run(home):
    def run(*words: object) -> Ran:
        result = CliRunner().invoke(cli, [str(word) for word in words])
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def network(run, tmp_path):
    file = tmp_path / "network.toml"
    assert run("network", "new", "--name", "n", "--seed", INVITE, "--testnet", "-o", file).code == 0
    return file


# What works


def test_version_and_help(run):
    assert run("--help").code == 0
    assert "130" in run("--help").out
    for command in (
        "demo",
        "circuit",
        "connect",
        "listen",
        "id",
        "relay init",
        "relay run",
        "network new",
        "network join",
    ):
        shown = run(*command.split(), "--help")
        assert shown.code == 0
        assert "Example:" in shown.out
        for option in ("--home", "--network", "--json", "--verbose"):
            assert option in shown.out
        assert "--lifeline" not in shown.out


def test_help_loads_neither_the_node_nor_asyncio():
    program = (
        "import sys\n"
        "from onionrelay.apps.cli import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'asyncio', 'rich', 'cryptography', 'ssl', 'onionrelay.node.home'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_the_id_is_made_once(run, home):
    first = run("id")
    assert first.code == 0
    assert NodeId.parse(first.out.strip())
    assert run("id").out == first.out
    assert (home / "node.key").stat().st_mode & 0o777 == 0o600


def test_shared_options_stand_before_or_after_the_command(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    before = run("--home", elsewhere, "--json", "id")
    after = run("id", "--json", "--home", elsewhere)
    assert before == after
    assert json.loads(before.out)["event"] == "id"
    assert run("--home", tmp_path / "ignored", "id", "--home", elsewhere, "--json").out == before.out
    assert not (tmp_path / "ignored").exists()
    assert not (tmp_path / "home").exists()


def test_a_relay_is_made_once(run, home):
    made = run("relay", "init", "--listen", "tls://127.0.0.1:9001")
    assert made.code == 0
    assert made.out.startswith("onrr1")
    assert made.out.endswith("@tls://127.0.0.1:9001\n")
    before = {file: file.read_bytes() for file in home.iterdir()}
    again = run("relay", "init", "--listen", "tls://127.0.0.1:9002")
    assert again.code == 2
    assert "already" in again.sentence
    assert {file: file.read_bytes() for file in home.iterdir()} == before


def test_a_relay_on_all_addresses_says_what_it_advertises(run):
    words = ("relay", "init", "--listen", "tls://0.0.0.0:9001")
    refused = run(*words)
    assert refused.code == 2
    assert "--advertise" in refused.sentence
    assert "@tls://192.0.2.1:443" in run(*words, "--advertise", "tls://192.0.2.1:443").out


def test_a_network_is_made_and_joined(run, network, home):
    joined = run("network", "join", network)
    assert joined.code == 0
    assert joined.out == "joined n\n"
    assert (home / "network.toml").exists()


# What does not


@pytest.mark.parametrize(
    "words",
    [
        "relay init",
        "relay init --listen 127.0.0.1:9001",
        "relay init --listen tls://relay.example:9001",
        "relay init --listen tls://127.0.0.1",
        "relay init --listen tls://127.0.0.1:0",
        "relay init --listen tls://127.0.0.1:65536",
        "relay init --listen tls://[::]:9001",
        "relay init --listen quic://127.0.0.1:9001",
        "relay init --listen tls://127.0.0.1:9001 --advertise tls://0.0.0.0:9001",
        "relay walk",
        "walk",
        "id --colour",
        "id more",
        "demo --home",
        "network new --name n -o {tmp}/n.toml",
        "network new --name n --seed nonsense -o {tmp}/n.toml",
        "network new --name n --seed onrr1qqqq@tls://127.0.0.1:9001 -o {tmp}/n.toml",
        "network new --name n --testnet --seed {node}@tls://127.0.0.1:9001 -o {tmp}/n.toml",
        "network new --name n --testnet --seed {invite} --seed {invite} -o {tmp}/n.toml",
        "network new --name n --seed {invite} -o {tmp}/n.toml",
        "network new --name n --testnet --seed {invite} -o {network}",
        "network new --name= --testnet --seed {invite} -o {tmp}/n.toml",
        "network join",
        "circuit nonsense --network {network}",
        "circuit {relay} --network {network}",
        "circuit {node}x --network {network}",
        "circuit --network {network}",
        "circuit {node} --hops 2 --network {network}",
        "circuit {node} --hops 6 --network {network}",
        "circuit {node} --hops many --network {network}",
        "circuit {node} --for 0 --network {network}",
        "circuit {node} --for nan --network {network}",
        "circuit {node} --for inf --network {network}",
        "circuit {node} --network=",
        "id --home=",
        "network join --network=",
        "ping {node} --interval nan --network {network}",
        "listen --service 80=a..b:80 --network {network}",
        "connect {node} --network {network}",
        "connect {node}:0 --network {network}",
        "connect {node}:ssh --network {network}",
        "connect {node}.onion:22 --network {network}",
        "connect nonsense 22 --network {network}",
        "connect {node} 22 22 --network {network}",
        "listen --network {network}",
        "listen --service 80 --network {network}",
        "listen --service 80=127.0.0.1:0 --network {network}",
        "listen --service 80=::1:80 --network {network}",
        "listen --service 80=127.0.0.1:1 --service 80=127.0.0.1:2 --network {network}",
        "listen --serve-folder 80={tmp}/none --network {network}",
        "listen --service 80=127.0.0.1:1 --serve-folder 80={tmp} --network {network}",
    ],
)
def test_usage_errors_end_with_2(run, network, tmp_path, words):
    values = {"tmp": tmp_path, "network": network, "node": NODE, "relay": RelayId(KEY), "invite": INVITE}
    before = network.read_bytes()
    ran = run(*words.format(**values).split(" "))
    assert ran.code == 2
    assert ran.sentence
    assert ran.out == ""
    assert network.read_bytes() == before
    assert not (tmp_path / "n.toml").exists()


@pytest.mark.parametrize("command", ["circuit {node}", "connect {node}:80", "listen --service 1=h:1", "relay run"])
def test_without_a_network_it_says_how_to_get_one(run, command):
    ran = run(*command.format(node=NODE).split())
    assert ran.code == 3
    assert "onionrelay network join" in ran.sentence


@pytest.mark.parametrize(
    "command", ["circuit {node}", "connect {node}:80", "listen --service 1=h:1", "relay run", "network join"]
)
def test_a_network_file_that_is_not_there(run, tmp_path, command):
    ran = run(*command.format(node=NODE).split(), "--network", tmp_path / "none.toml")
    assert ran.code == 3
    assert "none.toml" in ran.sentence


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "[",
        lambda text: "x = " + "[" * 20_000,
        lambda text: "x = " + "9" * 5_000,
        lambda text: "\xff\x00",
        lambda text: text * 2,
        lambda text: text.replace("testnet = true", "testnet = false"),
        lambda text: text.replace("testnet = true", "testnet = 1"),
        lambda text: text.replace("secret", "secrets"),
        lambda text: text.replace("127.0.0.1", "localhost"),
        lambda text: text.replace(INVITE, NODE),
    ],
)
def test_a_network_file_that_is_none(run, network, damage):
    network.write_text(damage(network.read_text()), encoding="latin-1")
    ran = run("circuit", NODE, "--network", network)
    assert ran.code == 2
    assert str(network) in ran.sentence


def test_a_network_file_too_long_to_be_one_is_not_read(run, network):
    network.write_text("#" * 100_000)
    ran = run("circuit", NODE, "--network", network)
    assert ran.code == 2
    assert str(network) in ran.sentence


def test_what_is_no_file_is_no_network_file(run, network, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, words in ((tmp_path, "Is a directory"), (tmp_path / "fifo", "Not a regular file")):
        ran = run("circuit", NODE, "--network", path)
        assert ran.code == 2
        assert words in ran.sentence


def test_a_test_network_is_said_to_be_one(run, network, tmp_path):
    """To standard error, so that what scripts read stays as it is."""
    assert run("network", "join", network).err.count("protects nobody") == 1
    assert run("network", "new", "--name", "n", "--seed", INVITE, "--testnet", "-o", tmp_path / "b").err == (
        "onionrelay: testnet: this is a test network, which protects nobody\n"
    )
    told = json.loads(run("network", "join", network, "--json").err)
    assert told == {"event": "notice", "text": "testnet: this is a test network, which protects nobody"}
    public = INVITE.replace("127.0.0.1", "9.9.9.9")
    assert run("network", "new", "--name", "n", "--seed", public, "-o", tmp_path / "c").err == ""


def test_joining_another_network_keeps_the_file_of_the_first(run, network, home, tmp_path):
    run("network", "new", "--name", "other", "--seed", INVITE, "--testnet", "-o", tmp_path / "other.toml")
    before = run("network", "join", network) and (home / "network.toml").read_bytes()
    assert "takes the place" not in run("network", "join", network).err
    kept = home / "network.toml.replaced-1"
    ran = run("network", "join", tmp_path / "other.toml")
    assert f"onionrelay: other takes the place of n, whose file now is {kept}\n" in ran.err
    assert kept.read_bytes() == before


def test_what_a_home_has_to_say_is_told(home, capsys):
    for as_json in (False, True):
        opened = Settings(home=home, json=as_json).open_home()
        opened.save_guards(bytes(8), "damaged")
        opened.load_guards(bytes(8), int)
    told = capsys.readouterr()
    assert told.out == ""
    text, event = told.err.splitlines()
    assert text.startswith("onionrelay: chose guards anew")
    assert json.loads(event)["event"] == "notice"


@pytest.mark.parametrize("handle", ["<&-", ">&-"])
def test_a_closed_standard_stream_is_one_sentence(tmp_path, handle):
    command = f"exec {sys.executable} -m onionrelay connect {NODE}:1 --home {tmp_path} {handle}"
    ran = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True, timeout=20)
    assert ran.returncode == 2
    assert re.fullmatch(r"onionrelay: standard (in|out)put is closed: .*\n", ran.stderr)


def test_the_environment_names_a_network_and_an_option_wins(run, network, tmp_path, monkeypatch):
    monkeypatch.setenv("ONIONRELAY_NETWORK", str(tmp_path / "none.toml"))
    assert "none.toml" in run("circuit", NODE).sentence
    assert run("circuit", "nonsense", "--network", network).code == 2
    assert "other.toml" in run("circuit", NODE, "--network", tmp_path / "other.toml").sentence


def test_a_relay_without_keys(run, network):
    ran = run("relay", "run", "--network", network)
    assert ran.code == 3
    assert "onionrelay relay init" in ran.sentence


@pytest.mark.parametrize(
    "damage", [lambda line: b"", lambda line: line[:-5], lambda line: line.upper(), lambda _: b"\xff" * 40]
)
def test_a_damaged_key(run, home, damage):
    run("id")
    (home / "node.key").write_bytes(damage((home / "node.key").read_bytes()))
    ran = run("id")
    assert ran.code == 2
    assert "node.key" in ran.sentence


def test_a_key_that_others_may_read(run, home):
    run("id")
    (home / "node.key").chmod(0o644)
    ran = run("id")
    assert ran.code == 3
    assert "chmod 600" in ran.sentence


def test_a_home_that_is_a_file(run, tmp_path):
    (tmp_path / "file").write_text("")
    assert run("id", "--home", tmp_path / "file").code == 3


def test_with_json_an_error_is_an_event(run):
    ran = run("circuit", NODE, "--json")
    assert ran.code == 3
    assert ran.err == ""
    error = json.loads(ran.out)
    assert error["event"] == "error"
    assert error["error"] == "NoNetwork"
    assert error["exit_code"] == 3
    usage = run("circuit", "--json")
    assert json.loads(usage.out)["exit_code"] == 2


def test_connect_keeps_standard_output_for_data(run):
    ran = run("connect", f"{NODE}:80", "--json")
    assert ran.out == ""
    assert json.loads(ran.err)["error"] == "NoNetwork"


def test_an_unforeseen_error_is_one_line_unless_asked(run, monkeypatch):
    def broken(_settings):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("onionrelay.apps.settings.Settings.open_home", broken)
    ran = run("id")
    assert ran.code == 1
    assert ran.sentence == "unexpected ZeroDivisionError: by zero; run with -v for the traceback"
    assert "Traceback" in run("id", "-v").err


def test_windows_is_told_what_to_do():
    require_platform("linux")
    require_platform("darwin")
    with pytest.raises(OnionRelayError, match="WSL"):
        require_platform("win32")


def test_the_module_runs_as_a_program(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "onionrelay", "id", "--home", tmp_path],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert NodeId.parse(ran.stdout.strip())
