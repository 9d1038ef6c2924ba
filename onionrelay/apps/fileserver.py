"""A static file server for one folder: GET and HEAD, single ranges, an index of folders without index.html.

http.server would need a TCP port that everybody on this machine can reach, and a thread per request; this one speaks
HTTP on the streams themselves. It says nothing about the machine: no date, no version, no modification times.
"""

import asyncio
import contextlib
import html
import mimetypes
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes, urlsplit

from onionrelay.base.limits import FILE_CHUNK, HTTP_HEAD, HTTP_HEAD_TIMEOUT
from onionrelay.node.splice import ByteWriter

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_REASONS = {
    200: "OK",
    206: "Partial Content",
    301: "Moved Permanently",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    416: "Range Not Satisfiable",
    431: "Request Header Fields Too Large",
    505: "HTTP Version Not Supported",
}


class HttpError(Exception):
    """A request that is answered with `status` and nothing else."""

    def __init__(self, status: int) -> None:
        super().__init__(_REASONS[status])
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """The head of one request; header names are lower-case, the path is still percent-encoded."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    keep_alive: bool = True

    @classmethod
    def parse(cls, head: bytes) -> "Request":
        """Raises HttpError. Requests with a body are refused: nothing here takes one."""
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        match first.split(" "):
            case [method, target, "HTTP/1.1" | "HTTP/1.0" as version]:
                pass
            case [_, _, _]:
                raise HttpError(505)
            case _:
                raise HttpError(400)
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise HttpError(400)
            headers[name.lower()] = value.strip()
        if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
            raise HttpError(400)
        try:
            path = urlsplit(target).path
        except ValueError:
            raise HttpError(400) from None
        keep_alive = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return cls(method, path, headers, keep_alive)


class FileServer:
    """Serves what is below `folder`: nothing outside of it, no hidden files, no devices."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()

    async def handle(self, reader: asyncio.StreamReader, writer: ByteWriter) -> None:
        """Answer the requests of one connection until it ends, idles, or a request asks for the end."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # a TimeoutError is an OSError
            while await self._serve_one(reader, writer):
                pass

    async def _serve_one(self, reader: asyncio.StreamReader, writer: ByteWriter) -> bool:
        """Answers one request; whether another may follow."""
        try:
            request = await _read_request(reader)
        except HttpError as error:  # what follows a head that could not be read could be anything
            await _send_error(error, writer, {"Connection": "close"})
            return False
        try:
            await self._answer(request, writer)
        except HttpError as error:
            extra = {"Allow": "GET, HEAD"} if error.status == 405 else {}
            await _send_error(error, writer, extra, request.method)
        return request.keep_alive

    async def _answer(self, request: Request, writer: ByteWriter) -> None:
        if request.method not in {"GET", "HEAD"}:
            raise HttpError(405)
        path = self._find(request.path)
        if path.is_dir():
            if not request.path.endswith("/"):
                await _send(writer, 301, {"Location": _url("/" + path.relative_to(self._root).as_posix()) + "/"})
                return
            index = path / "index.html"
            if not index.is_file():
                await _send(
                    writer, 200, {"Content-Type": "text/html; charset=utf-8"}, self._index(path), request.method
                )
                return
            path = self._find(request.path + "index.html")
        with _open_regular(path) as file:
            await _send_file(request, file, mimetypes.guess_type(path.name)[0], writer)

    def _find(self, url_path: str) -> Path:
        """The file or folder that a URL's path names; HttpError 404 for everything that must not be served."""
        try:
            names = [name for name in os.fsdecode(unquote_to_bytes(url_path)).split("/") if name]
            if any(name.startswith(".") or "\0" in name or "\\" in name for name in names):
                raise HttpError(404)
            path = self._root.joinpath(*names).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # a loop of links is a RuntimeError before Python 3.13
            raise HttpError(404) from None
        if not path.is_relative_to(self._root) or (url_path.endswith("/") and not path.is_dir()):
            raise HttpError(404)
        return path

    def _index(self, folder: Path) -> bytes:
        names = sorted(
            entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir() if entry.name[0] != "."
        )
        title = html.escape("/" + folder.relative_to(self._root).as_posix().removeprefix("."))
        items = "".join(f'<li><a href="{_url(name)}">{html.escape(name)}</a></li>\n' for name in names)
        return f"<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n{items}</ul>\n".encode(
            errors="surrogateescape"
        )


def _url(path: str) -> str:
    return quote(os.fsencode(path))  # names of files are bytes, whatever they mean


async def _read_request(reader: asyncio.StreamReader) -> Request:
    try:
        async with asyncio.timeout(HTTP_HEAD_TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise HttpError(431) from None
    if len(head) > HTTP_HEAD:
        raise HttpError(431)
    return Request.parse(head)


def _open_regular(path: Path) -> BinaryIO:
    """Opens a regular file; without O_NONBLOCK the opening of a FIFO would wait for somebody to write."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise HttpError(404) from None
    file = os.fdopen(fd, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise HttpError(404)
    return file


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte that a Range header asks for; None: the whole file, as for anything but one simple range."""
    match = _RANGE.fullmatch(header or "")
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        first, last = int(match[1]), int(match[2] or size - 1)
        if match[2] and last < first:
            return None
    else:
        first, last = size - int(match[2]), size - 1
    first, last = max(first, 0), min(last, size - 1)
    if first > last:
        raise HttpError(416)
    return first, last


async def _send_file(request: Request, file: BinaryIO, kind: str | None, writer: ByteWriter) -> None:
    size = os.fstat(file.fileno()).st_size
    headers = {"Content-Type": kind or "application/octet-stream", "Accept-Ranges": "bytes"}
    part = _range(request.headers.get("range"), size)
    first, last = part or (0, size - 1)
    if part:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    left = last - first + 1
    await _send_head(writer, 206 if part else 200, headers, left)
    if request.method == "HEAD":
        return
    file.seek(first)
    while left:
        data = await asyncio.to_thread(file.read, min(FILE_CHUNK, left))
        if not data:  # it has shrunk, and the length that was announced cannot be kept
            raise BrokenPipeError
        writer.write(data)
        await writer.drain()
        left -= len(data)


async def _send(
    writer: ByteWriter, status: int, headers: dict[str, str], body: bytes = b"", method: str = "GET"
) -> None:
    await _send_head(writer, status, headers, len(body))
    if method != "HEAD":
        writer.write(body)
        await writer.drain()


async def _send_error(error: HttpError, writer: ByteWriter, headers: dict[str, str], method: str = "GET") -> None:
    body = f"{error.status} {error}\n".encode()
    await _send(writer, error.status, {"Content-Type": "text/plain", **headers}, body, method)


async def _send_head(writer: ByteWriter, status: int, headers: dict[str, str], length: int) -> None:
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode("latin-1"))
    await writer.drain()
