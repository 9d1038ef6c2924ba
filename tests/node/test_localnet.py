"""What a local network needs besides its processes: ports and a folder that goes. The network itself: tests/e2e."""

import fcntl
import os
import socket

import pytest

from onionrelay.base.errors import ConfigError
from onionrelay.base.limits import LEFTOVER_AGE, LOCAL_PORTS
from onionrelay.node import localnet
from onionrelay.node.localnet import LocalNetwork, free_ports, temporary_folder


def test_free_ports_are_distinct_and_free():
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(LOCAL_PORTS[0] <= port < LOCAL_PORTS[1] for port in ports)
    for port in ports:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", port))


def test_a_port_in_use_is_not_free(monkeypatch):
    taken = free_ports(1)[0]
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", taken))
        monkeypatch.setattr(localnet, "LOCAL_PORTS", (taken, taken + 1))
        with pytest.raises(ConfigError, match="no 1 free ports"):
            free_ports(1)
    assert free_ports(1) == [taken]


def test_the_folder_goes_with_the_block_and_leftovers_of_killed_runs_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(localnet.tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as in_use:
        (in_use / "file").write_text("x")
        assert in_use.stat().st_mode & 0o777 == 0o700
        abandoned, fresh = (tmp_path / f"{localnet.PREFIX}{name}" for name in ("abandoned", "fresh"))
        for folder in (abandoned, fresh):
            folder.mkdir()
            (folder / "file").write_text("x")
        (tmp_path / f"{localnet.PREFIX}link").symlink_to(tmp_path)
        for folder in (in_use, abandoned):
            os.utime(folder, (0, fresh.stat().st_mtime - LEFTOVER_AGE - 1))
        with temporary_folder():
            assert (in_use / "file").exists()
            assert (fresh / "file").exists()
            assert not abandoned.exists()
    assert not in_use.exists()


def test_the_lock_is_not_inherited():
    with temporary_folder() as folder:
        child = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(child, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(child)


def test_more_seeds_than_relays_cannot_be():
    with pytest.raises(ConfigError):
        LocalNetwork(2, seeds=3)
