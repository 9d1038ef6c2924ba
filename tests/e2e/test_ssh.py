"""ssh through a circuit: `connect` as ProxyCommand, of asyncssh and, where there is one, of OpenSSH's client."""

import asyncio
import shutil
import sys
from contextlib import asynccontextmanager

import asyncssh
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def ssh_target(world, folder):
    """A node of its own whose port 22 leads to an ssh server; gives its id and the client's key file."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(folder / "key")
    (folder / "key").chmod(0o600)
    allowed = asyncssh.import_authorized_keys(key.export_public_key().decode())

    async def shell(process):
        async for line in process.stdin:
            process.stdout.write(line.upper())
        process.exit(0)

    async with asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        authorized_client_keys=allowed,
        process_factory=shell,
    ) as server:
        target = await world.network.start_target(
            "--service", f"22=127.0.0.1:{server.get_port()}", name=f"ssh-{folder.name}"
        )
        await target.event("reachable")
        try:
            yield (await target.event("ready"))["node_id"], str(folder / "key")
        finally:
            await target.stop()


def proxy(world):
    return [sys.executable, "-m", "onionrelay", *world.options, "connect"]


async def test_asyncssh(world, tmp_path):
    async with ssh_target(world, tmp_path) as (node_id, key):
        command = [*proxy(world), f"{node_id}.onionrelay", "22"]
        options = {"proxy_command": command, "known_hosts": None, "client_keys": [key], "config": None}
        async with asyncssh.connect(f"{node_id}.onionrelay", username="me", **options) as ssh:
            result = await ssh.run(input="through the circuit\n", check=True)
    assert result.stdout == "THROUGH THE CIRCUIT\n"


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here; asyncssh's takes the same way")
async def test_openssh(world, tmp_path):
    async with ssh_target(world, tmp_path) as (node_id, key):
        options = {
            "ProxyCommand": " ".join([*proxy(world), "%h", "%p"]),
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        process = await asyncio.create_subprocess_exec(
            "ssh", "-F", "none", "-i", key, *words, f"me@{node_id.upper()}.onionrelay", "upper",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(b"through the circuit\n")
    assert process.returncode == 0, err
    assert out == b"THROUGH THE CIRCUIT\n"
