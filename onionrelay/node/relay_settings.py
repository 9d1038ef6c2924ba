"""Where a relay listens and where others find it: relay.toml, written by `onionrelay relay init`.

::

    listen = ["tls://0.0.0.0:443", "tls://[::]:443"]           addresses of this machine
    advertise = ["tls://192.0.2.1:443"]                        what others dial; absent: the same as `listen`
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

from onionrelay.base.errors import ConfigError, UsageError
from onionrelay.node.toml_file import TomlKeys, toml_text
from onionrelay.wire.address import SCHEMES, Address, Endpoint, Transport, parse_listen

KEYS = "listen and advertise"
COMMENT = "Written by onionrelay relay init; may be edited while the relay is stopped."
SERVED = Transport.TLS

Place = tuple[Transport, Address]


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Validated: every listen address can be bound, and `endpoint` is what others dial."""

    listen: tuple[Place, ...]
    endpoint: Endpoint

    @classmethod
    def of(cls, listen: Sequence[str], advertise: Sequence[str], where: str = "") -> Self:
        """From texts like "tls://192.0.2.1:443". Without `advertise`, the listen addresses must be dialable."""
        prefix = f"{where}: " if where else ""
        places = read_places(listen, f"{prefix}listen")
        if not places:
            raise ConfigError(f"{prefix}listen names no address: a relay needs one, like tls://0.0.0.0:443")
        dialled = read_places(advertise, f"{prefix}advertise") or places
        return cls(places, endpoint_of(dialled, prefix))

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """From the file's bytes; `where` names it in messages."""
        keys = TomlKeys(data, where)
        listen, advertise = keys.texts("listen"), keys.texts("advertise")
        keys.finish(KEYS)
        return cls.of(listen, advertise, where)

    def text(self) -> str:
        """What `parse` reads back as this value."""
        advertised = [
            (transport, address)
            for transport in SCHEMES.values()
            if transport in self.endpoint.transports
            for address in self.endpoint.addresses
        ]
        return toml_text({"listen": place_texts(self.listen), "advertise": place_texts(advertised)}, COMMENT)

    def check_public(self) -> None:
        """Outside test networks others refuse a relay at an address that not everybody can reach."""
        for address in self.endpoint.addresses:
            if not address.is_public:
                raise ConfigError(f"{address} is no public address, as others need: correct `advertise` in relay.toml")


def read_places(texts: Sequence[str], where: str) -> tuple[Place, ...]:
    """Listen addresses, each once."""
    places: list[Place] = []
    for text in texts:
        try:
            place = parse_listen(text)
        except UsageError as error:
            raise ConfigError(f"{where}: {error}") from error
        if place[0] not in SERVED:
            raise ConfigError(f"{where}: {text} asks for a transport that relays do not serve yet: write tls://")
        if not place[1].port:
            raise ConfigError(f"{where}: {text} leaves the port open, and others need to know it: name one")
        if place in places:
            raise ConfigError(f"{where}: {text} stands there twice")
        places.append(place)
    return tuple(places)


def endpoint_of(places: Sequence[Place], prefix: str) -> Endpoint:
    """The one endpoint of a relay: an address of each family at most."""
    for transport, address in places:
        if ip_address(address.host).is_unspecified:
            text = place_texts([(transport, address)])[0]
            raise ConfigError(f"{prefix}nobody can dial {text}: say with --advertise what others dial")
    transports = Transport(0)
    for transport, _ in places:
        transports |= transport
    try:
        return Endpoint.at(transports, *dict.fromkeys(address for _, address in places))
    except UsageError as error:
        raise ConfigError(f"{prefix}advertise one IPv4 and one IPv6 address at most ({error})") from error


def place_texts(places: Sequence[Place]) -> list[str]:
    """As `parse_listen` reads them."""
    schemes = {transport: scheme for scheme, transport in SCHEMES.items()}
    return [f"{schemes[transport]}://{address}" for transport, address in places]
