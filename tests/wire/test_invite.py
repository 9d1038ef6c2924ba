import pytest

from onionrelay.base.errors import ConfigError
from onionrelay.wire.address import Endpoint, Transport
from onionrelay.wire.invite import Invite
from tests.wire.samples import IPV4, IPV6, RELAY


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint.at(Transport.TLS, IPV4),
        Endpoint.at(Transport.TLS | Transport.QUIC, IPV6),
        Endpoint.at(Transport.TLS | Transport.QUIC | Transport.WEBSOCKET, IPV4, IPV6),
    ],
)
def test_text_survives(endpoint):
    invite = Invite(RELAY, endpoint)
    assert Invite.parse(str(invite)) == invite
    assert Invite.parse(f"  {invite}\n") == invite


def test_the_order_of_places_does_not_matter():
    assert Invite.parse(f"{RELAY}@quic://{IPV6},tls://{IPV4},tls://{IPV6},quic://{IPV4}") == Invite(
        RELAY, Endpoint.at(Transport.TLS | Transport.QUIC, IPV4, IPV6)
    )


def test_a_host_name_is_refused_in_plain_words():
    with pytest.raises(ConfigError, match="host names are not looked up"):
        Invite.parse(f"{RELAY}@tls://relay.example:443")
