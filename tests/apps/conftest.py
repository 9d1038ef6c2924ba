"""What `test_cli` runs commands with is there for the tests of single commands, too; and a small network in-process."""

import pytest_asyncio

from onionrelay.testing.overlay import LocalOverlay
from tests.apps.local_programs import Served
from tests.apps.test_cli import home, network, run

__all__ = ["home", "network", "run", "served"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served():
    """A network in this process, a target that serves what `Served` says, and a node that reaches it."""
    async with LocalOverlay() as overlay, overlay.node() as target, overlay.node() as node:
        served = Served(overlay, target, node)
        await served.start()
        yield served
