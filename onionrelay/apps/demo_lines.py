"""The demo's events as lines of text, for a standard output that is no terminal."""

from collections.abc import Mapping
from typing import Any

from onionrelay.apps.circuit_report import circuit_lines

TESTNET = "this shows how it works: a test network on one machine protects nobody"


def demo_lines(event: Mapping[str, Any]) -> list[str]:
    """The lines that tell a person about `event`; none for those that only move a progress bar."""
    match event["event"]:
        case "ready":
            return [f"starting {event['relays']} relays, each a process of its own", TESTNET]
        case "relay":
            return [f"  relay {event['address']}, process {event['pid']}{', a seed' if event['seed'] else ''}"]
        case "target":
            return [
                f"the target serves a folder over HTTP and only dials out: {event['node_id']}",
                "building a circuit",
            ]
        case "circuit":
            return circuit_lines(event)
        case "done":
            return [done_line(event)]
    return []


def done_line(event: Mapping[str, Any]) -> str:
    """How the transfer went."""
    size, seconds = event["bytes"] / 1e6, event["seconds"]
    verdict = "SHA-256 is equal" if event["sha256_equal"] else "SHA-256 DIFFERS"
    return f"{size:.1f} MB through the circuit in {seconds:.2f} s ({size / max(seconds, 0.001):.0f} MB/s): {verdict}"
