"""onionrelay: private connections to nodes behind any NAT, through relays none of which learns both ends.

::

    async with onionrelay.Node(network="network.toml") as node:
        reader, writer = await node.open_connection(node_id, 80)

`Node` is all of the library's surface, with the errors below it; see README.md and specs/.
"""

from typing import TYPE_CHECKING

from onionrelay.base.errors import (
    Attempt,
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
    StreamReset,
    TimedOut,
    UsageError,
)

if TYPE_CHECKING:
    from onionrelay.base.ids import NodeId
    from onionrelay.node.api import Node
    from onionrelay.node.circuit import Circuit, HopInfo, HopTiming
    from onionrelay.node.services import Service
    from onionrelay.node.stream import Stream

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Circuit",
    "CircuitFailed",
    "CircuitLost",
    "ConfigError",
    "HomeError",
    "HopInfo",
    "HopTiming",
    "InvalidId",
    "NetworkError",
    "NoNetwork",
    "NoPath",
    "Node",
    "NodeId",
    "NodeNotFound",
    "OnionRelayError",
    "ProtocolViolation",
    "Service",
    "Stream",
    "StreamRefused",
    "StreamReset",
    "TimedOut",
    "UsageError",
    "__version__",
]

_HOMES = {
    "Circuit": "onionrelay.node.circuit",
    "HopInfo": "onionrelay.node.circuit",
    "HopTiming": "onionrelay.node.circuit",
    "Node": "onionrelay.node.api",
    "NodeId": "onionrelay.base.ids",
    "Service": "onionrelay.node.services",
    "Stream": "onionrelay.node.stream",
}

if not TYPE_CHECKING:  # a type checker would take every misspelt name for one of these

    def __getattr__(name: str) -> object:
        """Fetches what takes time to import when it is first asked for: `onionrelay --help` must not wait for it."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
