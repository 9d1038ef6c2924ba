"""Network addresses: always numbers, never host names, in one canonical text and one binary form (specs/02-wire.md).

::

    Address   18:  IPv6 16 | port u16                  an IPv4 address stands in its IPv4-mapped form ::ffff:a.b.c.d
    Endpoint  25:  transports u8 | IPv4 4 | port u16 | IPv6 16 | port u16              an absent address is all zeros

A name would have to be looked up, and a look-up tells a resolver whom this machine is about to contact.
"""

from enum import IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from onionrelay.base.errors import ConfigError, UsageError
from onionrelay.wire.codec import Buffer, Reader, Writer

ENDPOINT = 25
UNSPECIFIED = ("0.0.0.0", "::")


class Transport(IntFlag):
    """How a link can be carried; the transports byte of an endpoint. Unknown bits are kept and ignored."""

    QUIC = 1
    TLS = 2
    WEBSOCKET = 4


SCHEMES = {"tls": Transport.TLS, "quic": Transport.QUIC, "wss": Transport.WEBSOCKET}


def _unmapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


class Address(msgspec.Struct, frozen=True, order=True):
    """An IP address in canonical text, and a port. Build one from foreign text with `of` or `parse`."""

    host: str
    port: int

    def __post_init__(self) -> None:
        try:
            canonical = str(_unmapped(ip_address(self.host)))
        except ValueError as exc:
            raise UsageError(f"{self.host!r} is no IP address; host names are not looked up") from exc
        if canonical != self.host or "%" in self.host:
            raise UsageError(f"{self.host!r} is not in canonical form ({canonical})")
        if not 0 <= self.port <= 0xFFFF:
            raise UsageError(f"a port is a number up to 65535, not {self.port}")

    @classmethod
    def of(cls, host: str, port: int) -> "Address":
        """From a socket's address: an IPv4-mapped IPv6 address becomes IPv4, a zone ("%eth0") is dropped."""
        try:
            canonical = str(_unmapped(ip_address(host.partition("%")[0])))
        except ValueError as exc:
            raise UsageError(f"{host!r} is no IP address; host names are not looked up") from exc
        return cls(canonical, port)

    @classmethod
    def parse(cls, text: str) -> "Address":
        """From "127.0.0.1:80" or "[::1]:80". Raises UsageError, for a host name too."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or text.endswith("]"):
            raise UsageError(f"{text!r} names no port: write 192.0.2.1:443 or [2001:db8::1]:443")
        if not (port.isascii() and port.isdigit() and len(port) <= 5):
            raise UsageError(f"{text!r} is no address: write 192.0.2.1:443 or [2001:db8::1]:443")
        if bracketed != (":" in host) or "%" in host:
            raise UsageError(f"{text!r} is no address: IPv6 goes in brackets, without a zone")
        return cls.of(host[1:-1] if bracketed else host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        """The family; IPv4-mapped addresses never occur here."""
        return ":" in self.host

    @property
    def is_public(self) -> bool:
        """Whether it may be dialled because a peer said so: global unicast, and not 6to4, a detour to any IPv4 address.

        The addresses that IPv6 sets apart for translation to IPv4 count as reserved.
        """
        ip = ip_address(self.host)
        detour = isinstance(ip, IPv6Address) and ip.sixtofour is not None
        return ip.is_global and not ip.is_multicast and not ip.is_reserved and not detour

    @property
    def packed(self) -> bytes:
        """The bare address, 4 or 16 bytes."""
        return ip_address(self.host).packed

    def group16(self) -> bytes:
        """The address group of path selection: the first 2 bytes of an IPv4 address, 4 of an IPv6 one."""
        return self.packed[: 4 if self.is_ipv6 else 2]

    def group24(self) -> bytes:
        """The narrower group of per-address limits: the first 3 bytes of an IPv4 address, 6 of an IPv6 one."""
        return self.packed[: 6 if self.is_ipv6 else 3]

    def encode(self) -> bytes:
        """18 bytes: IPv6 16 | port u16."""
        packed = self.packed
        return (packed if self.is_ipv6 else b"\0" * 10 + b"\xff\xff" + packed) + self.port.to_bytes(2)

    @classmethod
    def decode(cls, body: Buffer) -> "Address":
        """From 18 bytes."""
        reader = Reader(body, "address")
        address = read_address(reader)
        reader.done()
        return address


def read_address(reader: Reader) -> Address:
    """Take an 18-byte address as a field of a larger structure."""
    return Address(str(_unmapped(IPv6Address(reader.take(16)))), reader.u16())


class Endpoint(msgspec.Struct, frozen=True):
    """Where a relay listens: the same port number per family for all its transports. Without an address: nowhere."""

    transports: Transport = Transport(0)
    ipv4: Address | None = None
    ipv6: Address | None = None

    def __post_init__(self) -> None:
        if bool(self.transports) != bool(self.addresses):
            raise UsageError("an endpoint has both transports and addresses, or neither")
        if any(not a.port or a.host in UNSPECIFIED for a in self.addresses):
            raise UsageError("an endpoint's address and port are not zero")
        if (self.ipv4 and self.ipv4.is_ipv6) or (self.ipv6 and not self.ipv6.is_ipv6):
            raise UsageError("an endpoint's address stands in the wrong family")

    @classmethod
    def at(cls, transports: Transport, *addresses: Address) -> "Endpoint":
        """From at most one address of each family."""
        ipv4 = [a for a in addresses if not a.is_ipv6]
        ipv6 = [a for a in addresses if a.is_ipv6]
        if len(ipv4) > 1 or len(ipv6) > 1:
            raise UsageError("an endpoint has one address of a family")
        return cls(transports, ipv4[0] if ipv4 else None, ipv6[0] if ipv6 else None)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses present, IPv4 first."""
        return tuple(address for address in (self.ipv4, self.ipv6) if address)

    def encode(self) -> bytes:
        """25 bytes: transports u8 | IPv4 4 | port u16 | IPv6 16 | port u16."""
        writer = Writer().u8(self.transports)
        for address, size in ((self.ipv4, 4), (self.ipv6, 16)):
            writer.fixed(address.packed if address else bytes(size), size).u16(address.port if address else 0)
        return writer.done()

    @classmethod
    def decode(cls, body: Buffer) -> "Endpoint":
        """From 25 bytes."""
        reader = Reader(body, "endpoint")
        endpoint = read_endpoint(reader)
        reader.done()
        return endpoint


def read_endpoint(reader: Reader) -> Endpoint:
    """Take a 25-byte endpoint as a field of a larger structure."""
    transports = Transport(reader.u8())
    ip4, port4 = IPv4Address(reader.take(4)), reader.u16()
    ip6, port6 = IPv6Address(reader.take(16)), reader.u16()
    try:
        return Endpoint(
            transports,
            Address(str(ip4), port4) if port4 or int(ip4) else None,
            Address(str(ip6), port6) if port6 or int(ip6) else None,
        )
    except UsageError as exc:
        reader.fail(str(exc))


def parse_listen(text: str) -> tuple[Transport, Address]:
    """From "tls://192.0.2.1:443", "quic://..." or "wss://...". Raises ConfigError, for a host name too."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ConfigError(f"{text!r} does not begin with tls://")
    try:
        return SCHEMES[scheme], Address.parse(rest)
    except UsageError as exc:
        raise ConfigError(str(exc)) from exc
