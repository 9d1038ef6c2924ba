"""The plain TCP server that both sides of a comparison talk to, in a process of its own.

A client's first line says what it wants: `send N`, and gets N bytes; `echo`, and gets back what it sends.
"""

import asyncio
import json

from onionrelay.node.lifeline import hold_lifeline

CHUNK = bytes(256 * 1024)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    match (await reader.readline()).split():
        case [b"send", size]:
            left = int(size)
            while left > 0:
                writer.write(CHUNK[:left])
                await writer.drain()
                left -= len(CHUNK)
        case _:
            while data := await reader.read(len(CHUNK)):
                writer.write(data)
                await writer.drain()
    writer.close()


async def main() -> None:
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        print(json.dumps({"event": "ready", "port": server.sockets[0].getsockname()[1]}), flush=True)
        await asyncio.Event().wait()


hold_lifeline(0)
asyncio.run(main())
