"""A folder that only its owner reads: whole files, replaced atomically; and the same in memory.

A reader sees the old file or the new one, never half of one, whatever moment a crash picks. Every failure is a
`HomeError` of one sentence that names the path and, where there is one, the remedy.
"""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from onionrelay.base.errors import HomeError

T = TypeVar("T")

GROUP_AND_OTHER = 0o077
WRITABLE_BY_OTHERS = 0o022


class Folder:
    """Files below `path` by name (one `/` at most). The first write makes the folder, 0700."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Folder({str(self.path)!r})"

    def read(self, name: str, limit: int) -> bytes | None:
        """The whole file, of `limit` bytes at most; None when there is none."""
        return self._read(name, limit, secret=False)

    def read_secret(self, name: str, limit: int) -> bytes | None:
        """As `read`, but refuses a file that others may read or write."""
        return self._read(name, limit, secret=True)

    def _read(self, name: str, limit: int, *, secret: bool) -> bytes | None:
        path = self.path / name
        try:
            mode, data = read_regular(path, limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HomeError(f"cannot read {path}: {reason(error)}") from error
        if secret and mode & GROUP_AND_OTHER:
            raise HomeError(f"others may read or write the key in {path}: chmod 600 {path}")
        if len(data) > limit:
            raise HomeError(f"{path} is longer than the {limit} bytes it can have: move it away")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Replaces the file, or makes it."""
        path = self.path / name
        self._make(path.parent)
        trying("write", path, lambda: replace_file(path, data))

    def set_aside(self, name: str, mark: str = "corrupt") -> str:
        """Renames a file, so that it neither hinders nor is lost; returns where it is now: `name`.`mark`-1, -2, …"""
        path = self.path / name
        number = 1
        while (aside := path.with_name(f"{path.name}.{mark}-{number}")).exists():
            number += 1
        trying("rename", path, lambda: path.rename(aside))
        return str(aside)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Waits until no other process is inside; for work that takes a moment."""
        with self._lock(name) as handle:
            trying("lock", self.path / name, lambda: take_lock(handle, wait=True))
            yield

    @contextmanager
    def hold(self, name: str, taken: str) -> Iterator[None]:
        """For as long as a process runs: raises HomeError with the words of `taken` while another one holds it."""
        with self._lock(name) as handle:
            if not trying("lock", self.path / name, lambda: take_lock(handle, wait=False)):
                raise HomeError(taken)
            yield

    @contextmanager
    def _lock(self, name: str) -> Iterator[int]:
        path = self.path / name
        self._make(path.parent)
        handle = trying("lock", path, lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            yield handle
        finally:
            os.close(handle)

    def _make(self, folder: Path) -> None:
        """A folder that exists is left as it is, but others must not be able to put files into it."""
        trying("make", folder, lambda: make_folders(folder))
        if trying("read", folder, folder.stat).st_mode & WRITABLE_BY_OTHERS:
            raise HomeError(f"others may write into {folder}: chmod 700 {folder}, or name another folder")


class MemoryFiles:
    """The interface of `Folder`, over files that end with the process and that nobody else sees."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return "MemoryFiles()"

    def read(self, name: str, _limit: int) -> bytes | None:
        """What was last written; None when nothing was."""
        return self._files.get(name)

    read_secret = read

    def write(self, name: str, data: bytes) -> None:
        """Replaces or makes."""
        self._files[name] = data

    def set_aside(self, name: str, _mark: str = "corrupt") -> str:
        """Forgets it."""
        del self._files[name]
        return "nowhere"

    def exclusive(self, _name: str) -> AbstractContextManager[None]:
        """No other process is ever inside."""
        return nullcontext()

    def hold(self, _name: str, _taken: str) -> AbstractContextManager[None]:
        """Always free."""
        return nullcontext()


def trying(verb: str, path: Path, action: Callable[[], T]) -> T:
    """What `action` returns; its OSError becomes "cannot `verb` `path`"."""
    try:
        return action()
    except OSError as error:
        raise HomeError(f"cannot {verb} {path}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """The system's words for what went wrong, without the path, which the sentence names already."""
    return error.strerror or type(error).__name__


def read_regular(path: Path, limit: int) -> tuple[int, bytes]:
    """The mode and the first `limit` bytes. OSError for what is no file; opening a FIFO must not wait for a writer."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Asked of the open file: by the time it is read, the name could be another file.
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder's reading says itself what it is
            raise OSError(errno.EINVAL, "Not a regular file")
        with open(handle, "rb", closefd=False) as file:
            return mode, file.read(limit)
    finally:
        os.close(handle)


def make_folders(folder: Path) -> None:
    """`mkdir -p` with every new folder 0700: Path.mkdir gives the mode to the last one only."""
    if folder.is_dir():
        return
    if folder.exists():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file")
    make_folders(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Writes `data` (0600) beside `path`, then renames it there; both are on the disk when this returns."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """A rename is durable only once the folder that holds the name is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take_lock(handle: int, *, wait: bool) -> bool:
    """Locks with flock, which the kernel undoes when the process ends, however it ends. False: another one has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
