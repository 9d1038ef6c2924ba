"""`onionrelay ping`: how long it takes to every hop on the way to a node, and how much that varies."""

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from onionrelay.apps.circuit_report import circuit_fields, summary
from onionrelay.apps.option_types import Seconds
from onionrelay.apps.run import run
from onionrelay.apps.settings import Settings, example, shared_options
from onionrelay.apps.targets import parse_node
from onionrelay.base.errors import TimedOut
from onionrelay.base.limits import MAX_HOPS, MIN_HOPS, PING_EVERY, PING_EVERY_LEAST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onionrelay.apps.ping_report import EchoTimes, Fields
    from onionrelay.base.ids import NodeId
    from onionrelay.node.circuit import Circuit


@click.command(
    short_help="Measure the time to every hop on the way to a node.",
    epilog=example(
        "onionrelay ping onr1q... -c 20",
        "onionrelay ping onr1q... --interval 0.2 --json",
    ),
)
@click.argument("node_id")
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="Stop after N rounds (else at Ctrl-C).")
@click.option(
    "--interval",
    type=Seconds(PING_EVERY_LEAST),
    default=PING_EVERY,
    show_default=True,
    metavar="S",
    help="Seconds from one round to the next.",
)
@click.option("--hops", type=click.IntRange(MIN_HOPS, MAX_HOPS), help="Relays on the way, the final one included.")
@shared_options
@click.pass_obj
def ping(settings: Settings, node_id: str, count: int | None, interval: float, hops: int | None) -> None:
    """Build a circuit to a node, and time echoes of every hop on the way, again and again.

    Ends with a table: for each hop the least time there and back from here, the median, and what nine of ten echoes
    stay below (p90). An echo that does not come counts as lost.
    """
    target = parse_node(node_id)
    home, network = settings.open_member()

    async def build_and_measure() -> None:
        from onionrelay import Node  # noqa: PLC0415 - --help must be quick

        async with Node(network, home=home) as node, node.circuit(target, hops=hops) as circuit:
            await measure(settings, target, circuit, count, interval)

    run(settings, build_and_measure(), endless=count is None)


async def measure(settings: Settings, target: "NodeId", circuit: "Circuit", count: int | None, interval: float) -> None:
    """Times so many rounds (None: rounds for ever) and tells about them. Raises CircuitLost, having told the rest."""
    import asyncio  # noqa: PLC0415 - --help must be quick

    from onionrelay.apps.ping_report import EchoTimes  # noqa: PLC0415

    fields = circuit_fields(target, circuit, await circuit.ping(1))  # it also warms the way for the echoes that count
    settings.output.event("ready", summary(fields), **fields)
    times = EchoTimes(circuit.hops)
    loop = asyncio.get_running_loop()
    due = loop.time()
    with _screen(settings, times) as show:
        while count is None or times.rounds < count:
            await asyncio.sleep(due - loop.time())
            show(times.add_round([await _echo(circuit, hop.position) for hop in circuit.hops]))
            due = max(due + interval, loop.time())


@contextmanager
def _screen(settings: Settings, times: "EchoTimes") -> "Iterator[Callable[[Fields], None]]":
    """Gives what shows a round; shows the statistics at the end, however it comes."""
    if not settings.json and sys.stdout.isatty():
        from onionrelay.apps.render import EchoScreen  # noqa: PLC0415 - only a terminal needs rich

        with EchoScreen() as show:
            yield lambda _: show(times.fields())
        return
    from onionrelay.apps.ping_report import echo_lines, round_line  # noqa: PLC0415 - --help must be quick

    try:
        yield lambda fields: settings.output.event("echoes", round_line(fields), **fields)
    finally:
        if times.rounds:
            settings.output.event("statistics", "\n".join(echo_lines(times.fields())), **times.fields())


async def _echo(circuit: "Circuit", position: int) -> float | None:
    try:
        return await circuit.echo(position)
    except TimedOut:
        return None
