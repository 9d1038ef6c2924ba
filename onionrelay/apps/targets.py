"""How people and programs write whom to reach and what to offer: `<node-id>:<port>`, `80=127.0.0.1:8000`, `80=DIR`.

Programs that know nothing but host names say `<node-id>.onionrelay` or `<node-id>.onionrelay.alt`. The name system will
never hold names under .alt (RFC 9476), so what leaks there by mistake is asked of nobody's server.
"""

from pathlib import Path

from onionrelay.base.errors import InvalidId, UsageError
from onionrelay.base.ids import NodeId

SHOWN = 80  # characters of a wrong id that a message repeats
DOMAINS = (".onionrelay", ".onionrelay.alt")  # make a host name of a node id, for ssh and proxies


def node_of(host: str) -> NodeId | None:
    """The node that a host name stands for; None when it is not one of ours. InvalidId when it should be and is not."""
    return _parse(host) if host.lower().removesuffix(".").endswith(DOMAINS) else None


def parse_node(text: str) -> NodeId:
    """The node id in `text`, with or without a domain. Host names have no case, and ssh lower-cases them."""
    return _parse(text.strip())


def _parse(text: str) -> NodeId:
    name = text.lower().removesuffix(".")
    domain = next((domain for domain in DOMAINS if name.endswith(domain)), "")
    try:
        return NodeId.parse(name.removesuffix(domain))
    except InvalidId as error:
        raise InvalidId(f"{text[:SHOWN]!r} is not the id of a node: {error}") from None


def parse_target(target: str, port: str | None = None) -> tuple[NodeId, int]:
    """`<node-id>[.onionrelay]:<port>`, or host and port apart as ssh passes them for %h %p."""
    if port is None:
        target, colon, port = target.rpartition(":")
        if not colon:
            raise UsageError(f"which port of the node? write {port}:PORT")
    return parse_node(target), parse_port(port)


def parse_port(text: str) -> int:
    """A port of a node or of TCP, 1 to 65535."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise UsageError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


def parse_service(text: str) -> tuple[int, str, int]:
    """`PORT=HOST:PORT` -> (port, host, port of the host); an IPv6 host stands in brackets."""
    port, equals, address = text.partition("=")
    host, colon, host_port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not (equals and colon and host) or (":" in host and not bracketed):
        raise UsageError(
            f"a service is written PORT=HOST:PORT, such as 80=127.0.0.1:8000 or 80=[::1]:8000, not {text!r}"
        )
    try:
        host.encode("idna")
    except UnicodeError:
        raise UsageError(f"{host[:SHOWN]!r} can be no host's name") from None
    return parse_port(port), host, parse_port(host_port)


def parse_folder(text: str) -> tuple[int, Path]:
    """`PORT=DIR` -> (port, a directory that exists)."""
    port, equals, folder = text.partition("=")
    if not (equals and folder):
        raise UsageError(f"a folder to serve is written PORT=DIR, such as 80=public, not {text!r}")
    if not Path(folder).is_dir():
        raise UsageError(f"there is no folder {folder!r} to serve")
    return parse_port(port), Path(folder)
