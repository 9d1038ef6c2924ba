"""`onionrelay circuit`: what a circuit to a node looks like, hop by hop."""

import sys
from typing import TYPE_CHECKING

import click

from onionrelay.apps.circuit_report import circuit_fields, circuit_lines, ping_line, timing_fields
from onionrelay.apps.option_types import Seconds
from onionrelay.apps.run import run
from onionrelay.apps.settings import Settings, example, shared_options
from onionrelay.apps.targets import parse_node
from onionrelay.base.errors import CircuitLost
from onionrelay.base.limits import MAX_HOPS, MIN_HOPS, PING_EVERY

if TYPE_CHECKING:
    from onionrelay.base.ids import NodeId
    from onionrelay.node.circuit import Circuit


@click.command(
    short_help="Build a circuit to a node and show it, hop by hop.",
    epilog=example(
        "onionrelay circuit onr1q... --hops 4",
        "onionrelay circuit onr1q... --hold --for 60 --json",
    ),
)
@click.argument("node_id")
@click.option("--hops", type=click.IntRange(MIN_HOPS, MAX_HOPS), help="Relays on the way, the final one included.")
@click.option("--hold", is_flag=True, help="Keep it open and measure every second, until Ctrl-C.")
@click.option("--for", "seconds", type=Seconds(0, min_open=True), metavar="S", help="As --hold, for S seconds.")
@shared_options
@click.pass_obj
def circuit(settings: Settings, node_id: str, hops: int | None, hold: bool, seconds: float | None) -> None:
    """Build a circuit to a node and show it: each hop with its role, its address and the time it adds.

    The times are differences of medians, with their standard error; "round trip" is there and back from here.
    """
    target = parse_node(node_id)
    home, network = settings.open_member()

    async def show() -> None:
        from onionrelay import Node  # noqa: PLC0415 - --help must be quick

        async with Node(network, home=home) as node, node.circuit(target, hops=hops) as circuit:
            await _show(settings, target, circuit, hold=hold or seconds is not None, seconds=seconds)

    run(settings, show(), endless=hold and seconds is None)


async def _show(settings: Settings, target: "NodeId", circuit: "Circuit", *, hold: bool, seconds: float | None) -> None:
    if hold:
        settings.output.event("ready", node_id=str(target))
    fields = circuit_fields(target, circuit, await circuit.ping())
    if not settings.json and sys.stdout.isatty():
        from onionrelay.apps.render import print_circuit  # noqa: PLC0415 - only a terminal needs rich

        print_circuit(fields)
    else:
        settings.output.event("circuit", "\n".join(circuit_lines(fields)), **fields)
    if hold:
        await _hold(settings, circuit, seconds)


async def _hold(settings: Settings, circuit: "Circuit", seconds: float | None) -> None:
    """Measure until `seconds` are over (None: for ever). Raises CircuitLost as soon as the circuit is gone."""
    import asyncio  # noqa: PLC0415 - --help must be quick

    lost = asyncio.ensure_future(circuit.wait_lost())
    try:
        async with asyncio.timeout(seconds) as limit:
            while not (await asyncio.wait({lost}, timeout=PING_EVERY))[0]:
                hops = [timing_fields(timing) for timing in await circuit.ping()]
                settings.output.event("ping", ping_line(hops), hops=hops)
            raise CircuitLost(f"the circuit is gone: {lost.result()}")
    except TimeoutError:
        if not limit.expired():  # an echo that never came is a TimeoutError, too
            raise
    finally:
        lost.cancel()
