"""What `onionrelay ping` has measured: round trips to every hop, as an event's fields and as lines of text."""

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onionrelay.apps.circuit_report import aligned, hop_fields
from onionrelay.base.limits import PING_KEPT

if TYPE_CHECKING:
    from onionrelay.node.circuit import HopInfo

Fields = dict[str, Any]
COLUMNS = ("hop", "role", "address", "min", "median", "p90", "lost")


class EchoTimes:
    """The round trips to the hops of one circuit. Medians and p90 are over the last PING_KEPT of them."""

    def __init__(self, hops: "Sequence[HopInfo]") -> None:
        self.rounds = 0
        self._hops = hops
        self._times: list[deque[float]] = [deque(maxlen=PING_KEPT) for _ in hops]
        self._lost = [0] * len(hops)

    def add_round(self, seconds: Sequence[float | None]) -> Fields:
        """One echo of each hop, in path order; None for one that did not come back. Returns an event's fields."""
        self.rounds += 1
        for position, one in enumerate(seconds):
            if one is None:
                self._lost[position] += 1
            else:
                self._times[position].append(one)
        hops = [{"position": position, "ms": _ms(one)} for position, one in enumerate(seconds, 1)]
        return {"round": self.rounds, "hops": hops}

    def fields(self) -> Fields:
        """The statistics as an event's fields; a hop that never answered has no times."""
        rows = zip(self._hops, self._times, self._lost, strict=True)
        return {"rounds": self.rounds, "hops": [_hop(hop, times, lost) for hop, times, lost in rows]}


def _hop(hop: "HopInfo", times: Sequence[float], lost: int) -> Fields:
    ordered = sorted(times)
    return {
        **hop_fields(hop),
        "min_ms": _ms(ordered[0]) if ordered else None,
        "median_ms": _ms(statistics.median(ordered)) if ordered else None,
        "p90_ms": _ms(ordered[math.ceil(0.9 * len(ordered)) - 1]) if ordered else None,  # nearest rank
        "samples": len(ordered),
        "lost": lost,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def echo_cells(hop: Mapping[str, Any]) -> tuple[str, ...]:
    """A table's row, in the order of COLUMNS."""
    times = (_written(hop[name]) for name in ("min_ms", "median_ms", "p90_ms"))
    return str(hop["position"]), hop["role"], hop["address"] or "only its node id is known", *times, str(hop["lost"])


def round_line(fields: Mapping[str, Any]) -> str:
    """One round."""
    return f"{fields['round']}:  " + "  ".join(f"{hop['position']}: {_written(hop['ms'])}" for hop in fields["hops"])


def echo_lines(fields: Mapping[str, Any]) -> list[str]:
    """The statistics as a table."""
    return aligned([COLUMNS, *(echo_cells(hop) for hop in fields["hops"])])


def _written(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.2f} ms"
