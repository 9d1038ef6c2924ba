"""Runs the ordinary program with taps inside TLS: `python -m onionrelay.testing.tapped FOLDER relay run ...`.

Everything that the process receives and sends on its links goes into files of FOLDER, as its own code sees it:

    <n>.in, <n>.out   the plaintext of the nth link, both ways
    opened            what it takes off a layer of its own: build records, and relay messages meant for it
    dialled           where its own links lead, an address a line

The program has no switch for this, and nothing of it knows this module: the classes are replaced from outside, in this
process, before it starts. `--from ADDRESS` makes all its connections come from that address, so that processes of one
machine can be told apart.
"""

import argparse
import asyncio
import itertools
import runpy
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

from onionrelay.core.circuit import admission, hop
from onionrelay.crypto.build import OpenedBuild
from onionrelay.net import tls
from onionrelay.net.tls_link import TlsLink
from onionrelay.wire.address import Address
from onionrelay.wire.relay import RelayPayload


class TappedSocket:
    """An SSLSocket that writes down what passes: before it goes into TLS, after it comes out."""

    def __init__(self, sock: ssl.SSLSocket, received: BinaryIO, sent: BinaryIO) -> None:
        self._sock = sock
        self._received = received
        self._sent = sent

    def recv_into(self, view: memoryview, size: int) -> int:
        """See SSLSocket."""
        count = self._sock.recv_into(view, size)
        self._received.write(view[:count])
        return count

    def send(self, data: memoryview) -> int:
        """See SSLSocket. What it does not take at once comes again, and is then written down again."""
        self._sent.write(data)
        return self._sock.send(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def tap(folder: Path) -> None:
    """Taps all links that this process makes from now on."""
    folder.mkdir(parents=True)
    numbers = itertools.count()
    dialled, opened = _writer(folder / "dialled"), _writer(folder / "opened")

    class TappedLink(TlsLink):
        def __init__(self, sock: ssl.SSLSocket, *, remote: Address, leaf_digest: bytes, is_server: bool) -> None:
            name = folder / str(next(numbers))
            tapped = TappedSocket(sock, _writer(name.with_suffix(".in")), _writer(name.with_suffix(".out")))
            super().__init__(cast("ssl.SSLSocket", tapped), remote=remote, leaf_digest=leaf_digest, is_server=is_server)
            if not is_server:
                dialled.write(f"{remote}\n".encode())

    def tapped_open_build(call: Callable[..., OpenedBuild]) -> Callable[..., OpenedBuild]:
        def open_build(*args: Any) -> OpenedBuild:
            build = call(*args)
            opened.write(build.plaintext)
            return build

        return open_build

    def tapped_parse_payload(call: Callable[[memoryview], RelayPayload]) -> Callable[[memoryview], RelayPayload]:
        def parse_payload(view: memoryview) -> RelayPayload:
            opened.write(view)
            return call(view)

        return parse_payload

    wrap(tls, "TlsLink", lambda _: TappedLink)
    wrap(admission, "open_build", tapped_open_build)
    wrap(hop, "parse_payload", tapped_parse_payload)


def come_from(address: str) -> None:
    """Binds every connection that this process makes from now on to an address of its own."""
    connect = asyncio.SelectorEventLoop.sock_connect

    async def sock_connect(loop: asyncio.SelectorEventLoop, sock: Any, remote: Any) -> None:
        sock.bind((address, 0))
        await connect(loop, sock, remote)

    setattr(asyncio.SelectorEventLoop, connect.__name__, sock_connect)


def wrap(owner: ModuleType | type, name: str, wrapper: Callable[[Any], Any]) -> None:
    """Replaces what `owner` calls by `name`; an AttributeError when there is nothing of that name any more."""
    setattr(owner, name, wrapper(getattr(owner, name)))


def run_program(arguments: list[str]) -> None:
    """What `python -m onionrelay ARGUMENTS` does. Does not return."""
    sys.argv[1:] = arguments
    runpy.run_module("onionrelay", run_name="__main__", alter_sys=True)


def _writer(path: Path) -> BinaryIO:
    """Unbuffered: whoever reads the file finds all of it, while the process runs and however it ends."""
    return cast("BinaryIO", path.open("wb", buffering=0))


def _main() -> None:
    parser = argparse.ArgumentParser(description="Run an onionrelay command with its links tapped.", allow_abbrev=False)
    parser.add_argument("--from", dest="source", metavar="ADDRESS")
    parser.add_argument("folder", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    tap(arguments.folder)
    if arguments.source:
        come_from(arguments.source)
    run_program(arguments.command)


if __name__ == "__main__":
    _main()
