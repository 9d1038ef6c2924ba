"""Telling the application what happens: events, each a dict with its name under "event"."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]


def guarded(on_event: Callable[[Event], None]) -> Callable[[Event], None]:
    """`on_event`, whose mistakes go to the event loop's exception handler and not to the one who tells."""

    def emit(event: Event) -> None:
        try:
            on_event(event)
        except Exception as error:  # noqa: BLE001 - it is the application's, and may raise anything
            context = {"message": f"on_event failed at {event['event']!r}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    return emit
