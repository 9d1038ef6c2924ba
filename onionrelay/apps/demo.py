"""The demo: a local network, a target in it that only dials out, a circuit to it, a file fetched and checked.

It tells what happens as events, for whoever shows them: `ready`, `relays`, `target`, `circuit`, `progress` and `done`
are the documented ones; `relay` (one is up) and `hop` (the circuit has it) let a screen grow meanwhile.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onionrelay
from onionrelay.apps.circuit_report import circuit_fields, hop_fields
from onionrelay.apps.http_get import ByteStream, Download
from onionrelay.base.errors import OnionRelayError
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import CHILD_READY, DEMO_BYTES, DEMO_RELAYS, PROGRESS_EVERY
from onionrelay.node.child import ChildProcess
from onionrelay.node.localnet import LocalNetwork, LocalRelay

Show = Callable[[dict[str, Any]], None]
DOCUMENTED = ("ready", "relays", "target", "circuit", "progress", "done")
FILE = "20mb.bin"
PORT = 80


def documented(show: Show) -> Show:
    """Passes on the events that scripts can rely on, and no others."""

    def passing(event: dict[str, Any]) -> None:
        if event["event"] in DOCUMENTED:
            show(event)

    return passing


async def run_demo(show: Show) -> None:
    """Run it and tear everything down. Raises OnionRelayError when something fails or the file arrives changed."""
    show({"event": "ready", "relays": DEMO_RELAYS, "bytes": DEMO_BYTES})

    def show_relay(relay: LocalRelay) -> None:
        show({"event": "relay", **_relay_fields(relay)})

    async with LocalNetwork(on_relay=show_relay) as network:
        show({"event": "relays", "folder": str(network.folder), "relays": [_relay_fields(r) for r in network.relays]})
        folder = network.folder / "public"
        digest, target = await asyncio.gather(
            asyncio.to_thread(_make_file, folder), network.start_target("--serve-folder", f"{PORT}={_made(folder)}")
        )
        await _fetch(show, network, target, digest)


async def _fetch(show: Show, network: LocalNetwork, target: ChildProcess, digest: str) -> None:
    node_id = NodeId.parse((await target.event("ready"))["node_id"])
    await target.event("reachable", seconds=CHILD_READY)
    show({"event": "target", "node_id": str(node_id), "pid": target.pid, "port": PORT})
    async with (
        onionrelay.Node(network.network, home=network.home("client")) as node,
        node.connect(node_id, port=PORT) as stream,
    ):
        for hop in stream.circuit.hops:
            show({"event": "hop", **hop_fields(hop)})
        fields = circuit_fields(node_id, stream.circuit, await stream.circuit.ping())
        show({"event": "circuit", **fields})
        done = await _download(show, stream, str(node_id), digest)
    show({"event": "done", **done})
    if not done["sha256_equal"]:
        raise OnionRelayError("the file that arrived is not the one that was served")


async def _download(show: Show, stream: ByteStream, host: str, digest: str) -> dict[str, Any]:
    begun = shown = time.monotonic()
    download = await Download.begin(stream, f"{host}.onionrelay", f"/{FILE}")
    received, hashed = 0, hashlib.sha256()
    async for chunk in download.chunks():
        hashed.update(chunk)
        received += len(chunk)
        if received == download.size or time.monotonic() - shown >= PROGRESS_EVERY:
            shown = time.monotonic()
            show({"event": "progress", "bytes": received, "total": download.size})
    return {
        "sha256_equal": hashed.hexdigest() == digest,
        "sha256": hashed.hexdigest(),
        "bytes": received,
        "seconds": round(time.monotonic() - begun, 3),
    }


def _relay_fields(relay: LocalRelay) -> dict[str, Any]:
    return {
        "relay_id": str(relay.invite.relay_id),
        "address": relay.address,
        "pid": relay.process.pid,
        "seed": relay.is_seed,
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _make_file(folder: Path) -> str:
    """Writes random bytes and returns their SHA-256: what the target serves, known here without any network."""
    data = os.urandom(DEMO_BYTES)
    (folder / FILE).write_bytes(data)
    return hashlib.sha256(data).hexdigest()
