"""A test network in the foreground: starts it, says what to type next, and tells which of its processes ended."""

import asyncio
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onionrelay.apps.output import Output
from onionrelay.base.errors import NoNetwork
from onionrelay.node.child import ChildProcess
from onionrelay.node.localnet import LocalNetwork, LocalRelay
from onionrelay.node.testnet_state import NetworkState, ProcessMark, RunningRelay, StateFile

PORT = 80
FILE = "hello.txt"
HELLO = "hello from a node that accepts no connection\n"
PROXY = "127.0.0.1:9190"


async def run_testnet(output: Output, relays: int, file: StateFile) -> None:
    """Runs it until it is cancelled. Raises ConfigError when one runs in the folder already."""
    with file.claim() as claimed:
        if not output.as_json:  # the first event is "ready"
            output.event("starting", f"starting {relays} relays and a target, each a process of its own")
        async with LocalNetwork(relays, parent=file.folder) as network:
            public = network.folder / "public"
            public.mkdir()
            (public / FILE).write_text(HELLO)
            target = await network.start_target("--serve-folder", f"{PORT}={public}")
            node_id = (await target.event("ready"))["node_id"]
            await target.event("reachable")
            state = _state(claimed, network, target, node_id)
            file.write(state)
            commands = commands_to_try(network, node_id)
            fields = {**status_fields(file.folder, state), "served": str(public), "commands": commands}
            output.event("ready", "\n".join(_ready_lines(fields)), **fields)
            await _tell_who_ends(output, network, target)


def _state(claimed: NetworkState, network: LocalNetwork, target: ChildProcess, node_id: str) -> NetworkState:
    relays = tuple(
        RunningRelay(str(relay.invite.relay_id), relay.address, relay.is_seed, ProcessMark.of(relay.process.pid))
        for relay in network.relays
    )
    return NetworkState(claimed.process, str(network.network_path), node_id, ProcessMark.of(target.pid), relays)


async def _tell_who_ends(output: Output, network: LocalNetwork, target: ChildProcess) -> None:
    """A network with a relay less is worth trying, too. Raises NoNetwork once nothing is left of it."""

    async def tell(name: str, child: ChildProcess) -> None:
        code = await child.wait()
        output.event("ended", f"{name} has ended, process {child.pid}", pid=child.pid, exit_code=code)

    async with asyncio.TaskGroup() as children:
        children.create_task(tell("the target", target))
        for relay in network.relays:
            children.create_task(tell(_name(relay), relay.process))
    raise NoNetwork("every process of the test network has ended")


def _name(relay: LocalRelay) -> str:
    return f"relay {relay.address}"


def commands_to_try(network: LocalNetwork, node_id: str) -> list[str]:
    """What to type in another terminal, as it is."""
    program = _program()
    home, path = shlex.quote(str(network.home("client"))), shlex.quote(str(network.network_path))
    here = f"--home {home} --network {path}"  # a home that goes with the network, and leaves the person's own alone
    return [
        f"{program} circuit {node_id} {here}",
        f"{program} ping {node_id} -c 5 {here}",
        rf"printf 'GET /{FILE} HTTP/1.0\r\n\r\n' | {program} connect {node_id}:{PORT} {here}",
        f"{program} socks --bind {PROXY} {here} &",
        f"curl --proxy socks5h://{PROXY} http://{node_id}.onionrelay/{FILE}",
    ]


def _program() -> str:
    return "onionrelay" if shutil.which("onionrelay") else f"{shlex.quote(sys.executable)} -m onionrelay"


def status_fields(folder: Path, state: NetworkState) -> dict[str, Any]:
    """The network as JSON has it."""
    return {
        "running": True,
        "ready": bool(state.relays),
        "dir": str(folder),
        "pid": state.process.pid,
        "network": state.network,
        "node_id": state.node_id,
        "target": state.target and {"pid": state.target.pid, "alive": state.target.is_running},
        "relays": [
            {
                "relay_id": relay.relay_id,
                "address": relay.address,
                "pid": relay.process.pid,
                "seed": relay.seed,
                "alive": relay.process.is_running,
            }
            for relay in state.relays
        ],
    }


def status_lines(fields: Mapping[str, Any]) -> list[str]:
    """The network as a person reads it."""
    head = f"a test network runs in {fields['dir']}, process {fields['pid']}"
    if not fields["ready"]:
        return [f"{head}; it is starting"]
    target = fields["target"]
    return [
        f"{head}, network file {fields['network']}",
        f"  target {fields['node_id']}, process {target['pid']}{_ended(target)}",
        *(
            f"  relay {relay['address']}, process {relay['pid']}{', a seed' if relay['seed'] else ''}{_ended(relay)}"
            for relay in fields["relays"]
        ),
    ]


def _ended(process: Mapping[str, Any]) -> str:
    return "" if process["alive"] else ", which has ended"


def _ready_lines(fields: Mapping[str, Any]) -> list[str]:
    return [
        *status_lines(fields),
        f"the target serves {fields['served']} on port {PORT}; in another terminal:",
        *(f"  {command}" for command in fields["commands"]),
        f"Ctrl-C ends it all, and so does: {_program()} testnet down --dir {shlex.quote(fields['dir'])}",
    ]
