import pytest

from onionrelay.base.errors import UsageError
from onionrelay.wire.address import Address, Endpoint, Transport, parse_listen

V4, V6 = Address("192.0.2.1", 443), Address("2001:db8::1", 9001)


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("8.8.8.8", True),
        ("2600::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.1.1", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("224.0.0.1", False),
        ("192.0.2.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff0e::1", False),
        ("2001:db8::1", False),
        ("::7f00:1", False),  # an IPv4-compatible 127.0.0.1
        ("64:ff9b::7f00:1", False),  # NAT64 to 127.0.0.1
        ("2002:7f00:1::1", False),  # 6to4 to 127.0.0.1
        ("2001:0:808:808::f5f5:f5fe", False),  # Teredo to 10.10.10.1
    ],
)
def test_which_addresses_are_public(host, public):
    assert Address(host, 443).is_public is public


def test_groups():
    assert V4.group16() == bytes([192, 0])
    assert V4.group24() == bytes([192, 0, 2])
    assert V6.group16() == bytes.fromhex("20010db8")
    assert V6.group24() == bytes.fromhex("20010db80000")


@pytest.mark.parametrize(
    "host", ["::ffff:192.0.2.1", "2001:DB8::1", "2001:db8:0::1", "192.0.2.01", "localhost", "", "fe80::1%2"]
)
def test_an_address_has_one_text(host):
    with pytest.raises(UsageError):
        Address(host, 1)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_ports(port):
    with pytest.raises(UsageError):
        Address("192.0.2.1", port)


def test_addresses_as_sockets_give_them():
    assert Address.of("::ffff:192.0.2.1", 443) == V4
    assert Address.of("fe80::1%eth0", 1) == Address("fe80::1", 1)
    assert Address.of("2001:DB8:0::1", 9001) == V6
    with pytest.raises(UsageError, match="host names are not looked up"):
        Address.of("relay.example", 443)


def test_addresses_are_keys_and_are_ordered():
    assert len({V4, Address.parse("192.0.2.1:443"), V6}) == 2
    assert sorted([V6, V4]) == [V4, V6]


def test_text_survives():
    for address in (V4, V6, Address("::", 0)):
        assert Address.parse(str(address)) == address


def test_an_endpoint_of_given_addresses():
    assert Endpoint.at(Transport.TLS, V6, V4) == Endpoint(Transport.TLS, V4, V6)
    assert Endpoint.at(Transport.TLS, V6, V4).addresses == (V4, V6)
    assert Endpoint.at(Transport.TLS, V6).addresses == (V6,)
    assert Endpoint().addresses == ()
    assert Endpoint().encode() == bytes(25)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Endpoint.at(Transport.TLS, V4, Address("192.0.2.2", 443)),
        lambda: Endpoint.at(Transport.TLS, V6, Address("2001:db8::2", 443)),
        lambda: Endpoint.at(Transport.TLS),
        lambda: Endpoint(Transport(0), V4),
        lambda: Endpoint(Transport.TLS, V6),
        lambda: Endpoint(Transport.TLS, None, V4),
        lambda: Endpoint(Transport.TLS, Address("0.0.0.0", 443)),
        lambda: Endpoint(Transport.TLS, Address("192.0.2.1", 0)),
    ],
)
def test_endpoints_that_cannot_be(make):
    with pytest.raises(UsageError):
        make()


def test_unknown_transports_are_kept():
    endpoint = Endpoint.decode(Endpoint(Transport(0x42), V4).encode())
    assert endpoint.transports == 0x42
    assert Transport.TLS in endpoint.transports


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("192.0.2.1:443", "does not begin with tls://$"),
        ("tls://192.0.2.1", "'192.0.2.1' names no port"),
        ("tls://[2001:db8::1]", "names no port"),
        ("tls://192.0.2.1:70000", "a port is a number up to 65535, not 70000"),
        ("tls://192.0.2.1:x", "is no address"),
        ("tls://2001:db8::1:443", "brackets"),
        ("tls://relay.example:443", "'relay.example' is no IP address"),
    ],
)
def test_listen_errors_say_what_is_wrong(text, words):
    with pytest.raises(UsageError, match=words):
        parse_listen(text)
