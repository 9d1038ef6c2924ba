"""What a terminal shows: the only module that knows rich."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from onionrelay.apps.circuit_report import hop_cells, summary
from onionrelay.apps.demo_lines import TESTNET, done_line
from onionrelay.apps.ping_report import COLUMNS as ECHO_COLUMNS
from onionrelay.apps.ping_report import echo_cells

COLUMNS = ("hop", "role", "address", "adds", "round trip")


def hops_table(hops: Sequence[Mapping[str, Any]], caption: str | None = None) -> Table:
    """Hops, with their times as far as they are known."""
    table = _table(COLUMNS, caption)
    for hop in hops:
        table.add_row(*hop_cells(hop))
    return table


def _table(columns: Sequence[str], caption: str | None) -> Table:
    """Empty. On a narrow terminal addresses are folded, for a part of a time would be another time."""
    table = Table(caption=caption, caption_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: JustifyMethod = "left" if column in {"role", "address"} else "right"
        table.add_column(column, justify=justify, no_wrap=column != "address", overflow="fold")
    return table


def print_circuit(fields: Mapping[str, Any], console: Console | None = None) -> None:
    """Show a circuit on standard output."""
    (console or Console(highlight=False)).print(hops_table(fields["hops"], summary(fields)))


class EchoScreen:
    """Shows the times of echoes as they come in: `with EchoScreen() as show: show(fields)`."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(highlight=False), auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, fields: Mapping[str, Any]) -> None:
        """Show the statistics as they are now."""
        caption = f"{fields['rounds']} round{'s' if fields['rounds'] > 1 else ''}"
        table = _table(ECHO_COLUMNS, caption)
        for hop in fields["hops"]:
            table.add_row(*echo_cells(hop))
        self._live.update(table, refresh=True)


class DemoScreen:
    """Shows the demo's events as they come: `with DemoScreen() as show: show(event)`."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._starting = Progress(
            TextColumn("starting relays"), BarColumn(), MofNCompleteColumn(), console=self._console, transient=True
        )
        self._hops: list[Mapping[str, Any]] = []
        self._circuit = Live(console=self._console, auto_refresh=False)
        self._fetching = Progress(
            TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=self._console
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for shown in (self._starting, self._circuit, self._fetching):
            shown.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        match event["event"]:
            case "ready":
                self._starting.add_task("relays", total=event["relays"])
                self._starting.start()
            case "relay":
                self._starting.advance(self._starting.task_ids[0])
            case "relays":
                self._starting.stop()
                self._console.print(f"[bold]{len(event['relays'])} relays[/], each a process of its own")
                self._console.print(f"[yellow]{TESTNET}[/]")
            case "target":
                self._console.print(f"[bold]target[/] {event['node_id']}")
                self._console.print("       serves a folder over HTTP, and only dials out")
                self._circuit.start()
            case "hop":
                self._hops.append(event)
                self._circuit.update(hops_table(self._hops), refresh=True)
            case "circuit":
                self._circuit.update(hops_table(event["hops"], summary(event)), refresh=True)
                self._circuit.stop()
            case "progress" | "done":
                self._show_transfer(event)

    def _show_transfer(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "done":
            self._fetching.stop()
            style = "green" if event["sha256_equal"] else "red"
            self._console.print(f"[bold {style}]{done_line(event)}")
            return
        if not self._fetching.task_ids:
            self._fetching.add_task("file", total=event["total"])
            self._fetching.start()
        self._fetching.update(self._fetching.task_ids[0], completed=event["bytes"])
