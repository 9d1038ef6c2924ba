import pytest

from onionrelay.testing.overlay import LocalOverlay


@pytest.fixture
async def overlay():
    """Eight relays in this process, of which three are seeds."""
    async with LocalOverlay() as overlay:
        yield overlay
