"""onionrelay: private connections to nodes behind any NAT, through relays none of which learns both ends.

::

    async with onionrelay.Node(network="network.toml") as node:
        reader, writer = await node.open_connection(node_id, 80)

`Node` is all of the library's surface, with the errors below it; see README.md and specs/.
"""

from typing import TYPE_CHECKING, Any

from onionrelay.base.errors import (
    CircuitFailed,
    CircuitLost,
    ConfigError,
    HomeError,
    InvalidId,
    NetworkError,
    NodeNotFound,
    NoNetwork,
    NoPath,
    OnionRelayError,
    ProtocolViolation,
    StreamRefused,
    TimedOut,
    UsageError,
)

if TYPE_CHECKING:
    from onionrelay.base.ids import NodeId
    from onionrelay.node.api import Node

__version__ = "0.1.0"

__all__ = [
    "CircuitFailed",
    "CircuitLost",
    "ConfigError",
    "HomeError",
    "InvalidId",
    "NetworkError",
    "NoNetwork",
    "NoPath",
    "Node",
    "NodeId",
    "NodeNotFound",
    "OnionRelayError",
    "ProtocolViolation",
    "StreamRefused",
    "TimedOut",
    "UsageError",
    "__version__",
]

_HOMES = {"Node": "onionrelay.node.api", "NodeId": "onionrelay.base.ids"}


def __getattr__(name: str) -> Any:
    """Fetches what takes time to import when it is first asked for: `onionrelay --help` must not wait for it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_HOMES[name]), name)
