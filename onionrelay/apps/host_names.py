"""Node ids as host names, for programs that know nothing else: `<node-id>.onionrelay`, `<node-id>.onionrelay.alt`.

The name system will never hold names under .alt (RFC 9476), so what leaks there by mistake is asked of nobody's server.
"""

from onionrelay.apps.targets import SUFFIX
from onionrelay.base.ids import NodeId

DOMAINS = (SUFFIX, f"{SUFFIX}.alt")


def node_of(host: str) -> NodeId | None:
    """The node that a host name stands for; None when it is not one of ours. InvalidId when it should be and is not."""
    name = host.lower().removesuffix(".")
    domain = next((domain for domain in DOMAINS if name.endswith(domain)), None)
    return None if domain is None else NodeId.parse(name.removesuffix(domain))
