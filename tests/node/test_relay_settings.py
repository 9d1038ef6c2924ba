"""relay.toml: where a relay listens and what it tells others."""

import pytest

from onionrelay.base.errors import ConfigError
from onionrelay.node.relay_settings import RelaySettings
from onionrelay.wire.address import Address, Transport


def test_the_listen_addresses_are_what_others_dial_unless_said_otherwise():
    settings = RelaySettings.of(["tls://9.9.9.9:443", "tls://[2620:fe::9]:444"], [])
    assert settings.endpoint.ipv4 == Address("9.9.9.9", 443)
    assert settings.endpoint.ipv6 == Address("2620:fe::9", 444)
    assert settings.endpoint.transports == Transport.TLS
    other = RelaySettings.of(["tls://0.0.0.0:9001", "tls://[::]:9001"], ["tls://9.9.9.9:443"])
    assert [str(address) for _, address in other.listen] == ["0.0.0.0:9001", "[::]:9001"]
    assert other.endpoint.addresses == (Address("9.9.9.9", 443),)


@pytest.mark.parametrize(
    ("listen", "advertise"),
    [
        (["tls://9.9.9.9:443"], []),
        (["tls://0.0.0.0:1", "tls://[::]:1"], ["tls://[2620:fe::9]:2", "tls://9.9.9.9:3"]),
    ],
)
def test_what_is_written_reads_back(listen, advertise):
    settings = RelaySettings.of(listen, advertise)
    assert RelaySettings.parse(settings.text().encode(), "relay.toml") == settings


@pytest.mark.parametrize(
    ("listen", "advertise", "words"),
    [
        ([], [], "listen names no address: a relay needs one"),
        (["9.9.9.9:443"], [], "listen: '9.9.9.9:443' does not begin with tls://"),
        (["tls://relay.example:443"], [], "listen: 'relay.example' is no IP address; host names are not looked up"),
        (["tls://9.9.9.9:0"], [], "listen: tls://9.9.9.9:0 leaves the port open"),
        (["tls://9.9.9.9:443"] * 2, [], "listen: tls://9.9.9.9:443 stands there twice"),
        (["quic://9.9.9.9:443"], [], "listen: quic://9.9.9.9:443 asks for a transport that relays do not serve yet"),
        (["tls://0.0.0.0:443"], [], "nobody can dial tls://0.0.0.0:443: say with --advertise"),
        (["tls://[::]:443"], [], r"nobody can dial tls://\[::\]:443: say with --advertise"),
        (["tls://9.9.9.9:443"], ["tls://0.0.0.0:443"], "nobody can dial tls://0.0.0.0:443"),
        (["tls://9.9.9.9:443"], ["tls://9.9.9.9:0"], "advertise: tls://9.9.9.9:0 leaves the port open"),
        (["tls://9.9.9.9:443", "tls://8.8.8.8:443"], [], "advertise one IPv4 and one IPv6 address at most"),
    ],
)
def test_every_fault_is_one_sentence(listen, advertise, words):
    with pytest.raises(ConfigError, match=words) as caught:
        RelaySettings.of(listen, advertise)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("listen = []", "relay.toml: listen names no address"),
        ("listen = ['tls://9.9.9.9:443']\nadvertize = []", "relay.toml: `advertize` is no key of this file"),
        ("listen = 'tls://9.9.9.9:443'", "relay.toml: `listen` must be a list of strings"),
        ("listen = ['tls://9.9.9.9']", "relay.toml: listen: '9.9.9.9' names no port"),
        ("listen = ['tls://0.0.0.0:443']", "relay.toml: nobody can dial tls://0.0.0.0:443"),
    ],
)
def test_a_fault_in_the_file_names_the_file(text, words):
    with pytest.raises(ConfigError, match=words):
        RelaySettings.parse(text.encode(), "relay.toml")


def test_only_a_test_network_has_relays_at_private_addresses():
    RelaySettings.of(["tls://0.0.0.0:443"], ["tls://9.9.9.9:443"]).check_public()
    with pytest.raises(ConfigError, match=r"127.0.0.1:443 is no public address, as others need: correct `advertise`"):
        RelaySettings.of(["tls://127.0.0.1:443"], []).check_public()
