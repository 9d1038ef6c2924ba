"""The text by which a person hands a first relay to another: onrr1...@tls://192.0.2.1:443 (specs/02-wire.md)."""

import msgspec

from onionrelay.base.errors import ConfigError, UsageError
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import MAX_INVITE
from onionrelay.wire.address import SCHEMES, Address, Endpoint, Transport, parse_listen


class Invite(msgspec.Struct, frozen=True):
    """A relay and where it listens. Text: relay id @ addresses, separated by commas, each with its transport.

    Every address is listed with every transport, as a relay serves all of them on the same port.
    """

    relay_id: RelayId
    endpoint: Endpoint

    @classmethod
    def parse(cls, text: str) -> "Invite":
        """From an invite's text. Raises ConfigError, or InvalidId for its relay id."""
        if len(text) > MAX_INVITE:
            raise ConfigError(f"an invite of {len(text)} characters")
        relay_id, at, places = text.strip().partition("@")
        if not at:
            raise ConfigError(f"{text!r} is no invite: write onrr1...@tls://192.0.2.1:443")
        return cls(RelayId.parse(relay_id), _parse_places(places.split(",")))

    def __str__(self) -> str:
        places = (
            f"{scheme}://{address}"
            for scheme, transport in SCHEMES.items()
            if transport in self.endpoint.transports
            for address in self.endpoint.addresses
        )
        return f"{self.relay_id}@{','.join(places)}"


def _parse_places(texts: list[str]) -> Endpoint:
    places = [parse_listen(text) for text in texts]
    transports = Transport(0)
    addresses: dict[Address, None] = {}
    for transport, address in places:
        transports |= transport
        addresses[address] = None
    if len(set(places)) != len(places) or len(places) != len(addresses) * transports.bit_count():
        raise ConfigError("an invite lists each address once with each transport")
    try:
        return Endpoint.at(transports, *addresses)
    except UsageError as exc:
        raise ConfigError(str(exc)) from exc
