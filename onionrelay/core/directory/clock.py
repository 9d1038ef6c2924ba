"""The time as the network has it: the median of what relays say in their link handshakes.

specs/07-directory-and-paths.md, "Time". What a client writes into build records comes from here and never from its own
clock, whose error would mark it.
"""

from collections.abc import Sequence
from statistics import median_low

from onionrelay.base.errors import NetworkError
from onionrelay.base.limits import CLOCK_SAMPLES, CLOCK_SKEW_REFUSED, TIME_WINDOW


def network_window(windows: Sequence[int]) -> int | None:
    """The median of the windows (unix // 600) that distinct relays said; None while there are fewer than three."""
    return median_low(windows) if len(windows) >= CLOCK_SAMPLES else None


def clock_offset(window: int, unix_now: int) -> int:
    """By how many seconds our clock is off at least: 0 anywhere inside the window, positive when it is ahead."""
    start = window * TIME_WINDOW
    return min(0, unix_now - start) + max(0, unix_now - (start + TIME_WINDOW - 1))


def require_clock(windows: Sequence[int], unix_now: int) -> None:
    """Raises NetworkError when our clock is more than 20 minutes off; with too few relays there is no telling."""
    window = network_window(windows)
    if window is None:
        return
    offset = clock_offset(window, unix_now)
    if abs(offset) > CLOCK_SKEW_REFUSED:
        way = "ahead of" if offset > 0 else "behind"
        raise NetworkError(f"this machine's clock is {abs(offset) // 60} minutes {way} the network's; set it first")
