"""`onionrelay connect`: one stream on standard input and output, for ssh and whatever else speaks through a pipe."""

import sys
from typing import TYPE_CHECKING, Any

import click

from onionrelay.apps.run import run
from onionrelay.apps.settings import Settings, example, shared_options
from onionrelay.apps.targets import parse_target
from onionrelay.base.errors import CircuitLost, NetworkError, OnionRelayError, UsageError

if TYPE_CHECKING:
    import asyncio

    from onionrelay.base.ids import NodeId
    from onionrelay.node.home import Home
    from onionrelay.node.network_file import NetworkFile
    from onionrelay.node.splice import ByteReader, ByteWriter
    from onionrelay.node.stream import Stream


@click.command(
    short_help="Standard input and output to a port of a node.",
    epilog=example(
        "echo hello | onionrelay connect onr1q...:7",
        "ssh -o ProxyCommand='onionrelay connect %h %p' user@onr1q....onionrelay",
    ),
)
@click.argument("target")
@click.argument("port", required=False)
@shared_options
@click.pass_obj
def connect(settings: Settings, target: str, port: str | None) -> None:
    """Connect standard input and output to a port of a node.

    TARGET is <node-id>:<port> or <node-id>.onionrelay:<port>; the port may also follow as a word of its own. Standard
    output carries the data and nothing else.
    """
    settings.stdout_is_data = True
    if sys.stdin is None:
        raise UsageError("standard input is closed: let it come from /dev/null if there is nothing to send")
    node, number = parse_target(target, port)
    home, network = settings.open_member()
    run(settings, _connect(settings, (home, network), node, number))


async def _connect(settings: Settings, member: "tuple[Home, NetworkFile]", target: "NodeId", port: int) -> None:
    from onionrelay import Node  # noqa: PLC0415 - --help must be quick
    from onionrelay.apps.stdio import FileReader, FileWriter  # noqa: PLC0415

    home, network = member
    async with Node(network, home=home) as node, node.connect(target, port=port) as stream:
        settings.say_testnet(network)
        with FileWriter(sys.stdout.fileno()) as stdout:
            await carry(stream, FileReader(sys.stdin.fileno()), stdout)


async def carry(stream: "Stream", local: "ByteReader", out: "ByteWriter") -> None:
    """Passes bytes both ways until both directions have ended. NetworkError when one was cut before its end."""
    import asyncio  # noqa: PLC0415 - --help must be quick

    from onionrelay.apps.stdio import ReaderGone  # noqa: PLC0415
    from onionrelay.node.splice import splice  # noqa: PLC0415

    lost = asyncio.ensure_future(stream.circuit.wait_lost())
    reader = UntilLost(local, lost)
    try:
        await splice((reader, out), (stream.reader, stream.writer))
        if reader.is_cut:
            raise CircuitLost(f"the circuit is gone: {lost.result()}")
        stream.writer.close()
        await stream.writer.wait_closed()  # an error now means that the rest did not get there
    except ReaderGone:
        stream.abort()
    except ConnectionResetError as error:
        raise error if isinstance(error, OnionRelayError) else NetworkError(str(error)) from error
    finally:
        lost.cancel()


class UntilLost:
    """A reader that ends when the circuit does, even if it could wait for more for ever; `is_cut` tells whether."""

    def __init__(self, reader: "ByteReader", lost: "asyncio.Future[str]") -> None:
        self._reader = reader
        self._lost = lost
        self.is_cut = False

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes; b"" at the end. What the other direction has received is still passed on."""
        import asyncio  # noqa: PLC0415 - --help must be quick

        reading = asyncio.ensure_future(self._reader.read(n))
        try:
            either: set[asyncio.Future[Any]] = {reading, self._lost}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                self.is_cut = True
                return b""
            return await reading
        finally:
            reading.cancel()
