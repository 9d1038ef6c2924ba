"""What there is to tell about a circuit, as an event's fields and as lines of text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onionrelay.node.circuit import Circuit, HopInfo, HopTiming

Fields = dict[str, Any]


def circuit_fields(target: object, circuit: "Circuit", timings: "Sequence[HopTiming]") -> Fields:
    """The fields of an event "circuit". Times in milliseconds; `error_ms` is the standard error of `added_ms`."""
    return {
        "target": str(target),
        "build_ms": round(circuit.build_time * 1e3, 3),
        "anonymity": str(circuit.anonymity),
        "hops": [hop_fields(hop, timing) for hop, timing in zip(circuit.hops, timings, strict=True)],
    }


def hop_fields(hop: "HopInfo", timing: "HopTiming | None" = None) -> Fields:
    """One hop of a circuit; without times while there are none."""
    fields: Fields = {"position": hop.position, "role": hop.role, "address": hop.address, "relay_id": hop.relay_id}
    return fields | timing_fields(timing) if timing else fields


def timing_fields(timing: "HopTiming") -> Fields:
    """The times of one hop."""
    return {
        "position": timing.position,
        "median_ms": round(timing.median_ms, 3),
        "added_ms": round(timing.added_ms, 3),
        "error_ms": round(timing.error_ms, 3),
        "samples": timing.samples,
    }


def summary(fields: Mapping[str, Any]) -> str:
    """One line about the whole circuit."""
    relays = len(fields["hops"]) - 1
    return f"{relays} relays, built in {fields['build_ms']:.1f} ms, anonymity {fields['anonymity']}"


def hop_cells(hop: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Position, role, address, what this hop adds with its error, and the time there and back, for a table's row."""
    times = ("", "")
    if "median_ms" in hop:
        times = (f"{hop['added_ms']:+.2f} ±{hop['error_ms']:.2f} ms", f"{hop['median_ms']:.2f} ms")
    return str(hop["position"]), hop["role"], hop["address"] or "only its node id is known", *times


def circuit_lines(fields: Mapping[str, Any]) -> list[str]:
    """A table for a terminal that is none."""
    rows = [("hop", "role", "address", "adds", "round trip"), *(hop_cells(hop) for hop in fields["hops"])]
    return [summary(fields), *aligned(rows)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines whose columns stand below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def ping_line(hops: Sequence[Mapping[str, Any]]) -> str:
    """One line of the round trips to all hops."""
    return "  ".join(f"{hop['position']}: {hop['median_ms']:.2f} ms" for hop in hops)
