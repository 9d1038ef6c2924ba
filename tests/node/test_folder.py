"""Files of one owner: permissions, atomic replacement, locks, and words for what goes wrong."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from onionrelay.base.errors import HomeError
from onionrelay.node import folder as module
from onionrelay.node.folder import Folder, MemoryFiles


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def files(tmp_path):
    return Folder(tmp_path / "a" / "home")


@pytest.mark.parametrize("files", [Folder, lambda _: MemoryFiles()], ids=["folder", "memory"])
def test_files_are_kept_replaced_and_set_aside(tmp_path, files):
    files = files(tmp_path / "home")
    assert files.read("x", 10) is None
    files.write("x", b"one")
    files.write("x", b"two")
    files.write("sub/y", b"three")
    assert (files.read("x", 3), files.read_secret("sub/y", 10)) == (b"two", b"three")
    files.set_aside("x")
    assert files.read("x", 10) is None
    with files.exclusive("lock"), files.hold("role.lock", "taken"):
        files.write("x", b"four")
    assert files.read("x", 10) == b"four"


def test_only_the_owner_may_read_whatever_the_umask(files):
    before = os.umask(0)
    try:
        files.write("sub/y", b"1")
        with files.exclusive("lock"):
            pass
    finally:
        os.umask(before)
    paths = [files.path.parent, files.path, files.path / "sub", files.path / "sub/y", files.path / "lock"]
    assert [mode(path) for path in paths] == [0o700, 0o700, 0o700, 0o600, 0o600]


@pytest.mark.parametrize("bits", [0o640, 0o620, 0o604, 0o602, 0o610])
def test_a_secret_that_others_can_use_is_refused_with_the_remedy(files, bits):
    files.write("key", b"secret")
    path = files.path / "key"
    path.chmod(bits)
    with pytest.raises(HomeError, match=f"chmod 600 {path}"):
        files.read_secret("key", 10)
    assert files.read("key", 10) == b"secret"
    path.chmod(0o400)
    assert files.read_secret("key", 10) == b"secret"


def test_a_folder_that_others_can_write_to_is_refused(files):
    files.write("x", b"1")
    files.path.chmod(0o770)
    with pytest.raises(HomeError, match=f"chmod 700 {files.path}"):
        files.write("x", b"2")
    files.path.chmod(0o755)
    files.write("x", b"3")


def test_a_file_longer_than_it_can_be_is_not_read(files):
    files.write("x", bytes(11))
    assert files.read("x", 11) == bytes(11)
    with pytest.raises(HomeError, match="longer than the 10 bytes"):
        files.read("x", 10)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(files, monkeypatch, step):
    files.write("x", b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((module.os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(HomeError, match=r"cannot write .*/x: No space left on device"):
        files.write("x", b"new")
    assert files.read("x", 10) == b"old"
    assert [entry.name for entry in files.path.iterdir()] == ["x"]


def test_what_the_system_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match=r"cannot make .*/file/home: .*/file is a file$"):
        Folder(tmp_path / "file" / "home").write("x", b"")
    with pytest.raises(HomeError, match=r"cannot read .*/file/home/x: Not a directory"):
        Folder(tmp_path / "file" / "home").read("x", 10)
    (tmp_path / "x").mkdir()
    with pytest.raises(HomeError, match=r"cannot read .*/x: Is a directory"):
        Folder(tmp_path).read("x", 10)


def test_each_damaged_file_is_kept_under_a_number_of_its_own(files):
    kept = []
    for content in (b"first", b"second"):
        files.write("sub/guards.json", content)
        kept.append(files.set_aside("sub/guards.json"))
    assert [Path(name).name for name in kept] == ["guards.json.corrupt-1", "guards.json.corrupt-2"]
    assert [Path(name).read_bytes() for name in kept] == [b"first", b"second"]


def hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with Folder(path).hold("relay.lock", "taken"):
        ready.set()
        multiprocessing.Event().wait()


def test_a_role_is_held_until_its_process_ends_however_it_ends(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    holder = spawn.Process(target=hold, args=(tmp_path, ready))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(HomeError, match="taken"), Folder(tmp_path).hold("relay.lock", "taken"):
            pass
        with Folder(tmp_path).hold("target.lock", "taken"):
            pass
    finally:
        holder.kill()
        holder.join()
    with Folder(tmp_path).hold("relay.lock", "taken"):
        pass


def count(path: Path, times: int) -> None:
    files = Folder(path)
    for _ in range(times):
        with files.exclusive("lock"):
            files.write("n", str(int(files.read("n", 10) or b"0") + 1).encode())


def test_exclusive_work_of_two_processes_never_interleaves(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=count, args=(tmp_path, 30)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert Folder(tmp_path).read("n", 10) == b"60"


def test_a_role_that_is_released_is_free(files):
    for _ in range(2):
        with files.hold("relay.lock", "taken"):
            pass
