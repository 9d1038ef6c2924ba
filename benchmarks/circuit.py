"""What a circuit costs: build time against hops, round trip per hop, one stream's throughput.

    python -m benchmarks.circuit [--json]

Every relay, the target and the TCP server behind it are processes of their own on this machine's loopback, with TLS
links and all layers, as `onionrelay demo` runs them; the client is this process. The same client code asks the same
server directly over loopback TCP, alternating with the runs through the circuit, and the ratios are between these two.
Absolute figures belong to the machine; ratios, and CPU time per megabyte, can be compared.

    build         from sending the build message until every hop has answered: one round trip through all hops and
                  a key agreement with each. Median over the builds, each along another path; guard link open before.
    per hop       medians of echoes from every hop of one circuit, and the difference each hop makes, +- its
                  standard error
    round trip    64 bytes to the server's echo and back, one at a time
    throughput    one stream, from the request's first byte to the answer's last
    CPU           user and system time of client, relays, target and server during the transfers, per megabyte (Linux)
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import onionrelay
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import MAX_HOPS, MIN_HOPS
from onionrelay.node.child import ChildProcess
from onionrelay.node.localnet import LocalNetwork

PORT = 7
MESSAGE = bytes(64)
ECHOES = 200
Result = dict[str, Any]
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def measure(builds: int, megabytes: int, rounds: int) -> Result:
    async with LocalNetwork() as network:
        program = [sys.executable, "-m", "benchmarks.server"]
        server = await ChildProcess.start_program("server", program, network.folder)
        try:
            return await _measure(network, server, builds, megabytes, rounds)
        finally:
            await server.stop()


async def _measure(network: LocalNetwork, server: ChildProcess, builds: int, megabytes: int, rounds: int) -> Result:
    port = (await server.event("ready"))["port"]
    target = await network.start_target("--service", f"{PORT}=127.0.0.1:{port}")
    node_id = NodeId.parse((await target.event("reachable"))["node_id"])
    pids = [os.getpid(), server.pid, target.pid, *(relay.process.pid for relay in network.relays)]

    async def direct() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)

    async with onionrelay.Node(network.network, home=network.folder / "client") as node:

        async def through() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await node.open_connection(node_id, PORT)

        return {
            "machine": {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()},
            "build": [await build_times(node, node_id, hops, builds) for hops in range(MIN_HOPS, MAX_HOPS + 1)],
            "hops": await hop_times(node, node_id),
            "round_trip": compare(await round_trip(direct), await round_trip(through), "ms"),
            "throughput": await throughput(direct, through, megabytes, rounds, pids),
        }


async def build_times(node: onionrelay.Node, node_id: NodeId, hops: int, builds: int) -> Result:
    times = []
    for _ in range(builds):
        async with node.circuit(node_id, hops=hops) as circuit:
            times.append(circuit.build_time * 1e3)
    return {"relays": hops, "median_ms": statistics.median(times), "fastest_ms": min(times), "builds": builds}


async def hop_times(node: onionrelay.Node, node_id: NodeId) -> list[Result]:
    async with node.circuit(node_id) as circuit:
        timings = await circuit.ping(samples=ECHOES)
        return [
            {"role": hop.role, "median_ms": t.median_ms, "added_ms": t.added_ms, "error_ms": t.error_ms}
            for hop, t in zip(circuit.hops, timings, strict=True)
        ]


async def round_trip(connect: Connect) -> float:
    reader, writer = await connect()
    writer.write(b"echo\n")
    times = []
    for _ in range(ECHOES):
        begun = time.perf_counter()
        writer.write(MESSAGE)
        await reader.readexactly(len(MESSAGE))
        times.append((time.perf_counter() - begun) * 1e3)
    writer.close()
    return statistics.median(times)


async def throughput(direct: Connect, through: Connect, megabytes: int, rounds: int, pids: list[int]) -> Result:
    size, plain, private, cpu = megabytes * 1_000_000, [], [], []
    for _ in range(rounds):
        plain.append(megabytes / await transfer(direct, size))
        before = cpu_seconds(pids)
        private.append(megabytes / await transfer(through, size))
        cpu.append((cpu_seconds(pids) - before) * 1e3 / megabytes)
    result = compare(statistics.median(plain), statistics.median(private), "mb_per_s")
    return {**result, "cpu_ms_per_mb": statistics.median(cpu), "megabytes": megabytes, "rounds": rounds}


async def transfer(connect: Connect, size: int) -> float:
    reader, writer = await connect()
    begun, received = time.perf_counter(), 0
    writer.write(b"send %d\n" % size)
    while data := await reader.read(1 << 20):
        received += len(data)
    writer.close()
    if received != size:
        raise onionrelay.OnionRelayError(f"{received} of {size} bytes arrived")
    return time.perf_counter() - begun


def compare(direct: float, through: float, unit: str) -> Result:
    return {f"direct_{unit}": direct, f"circuit_{unit}": through, "ratio": through / direct}


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes; 0 where there is no /proc."""
    if not Path("/proc/self/stat").exists():
        return 0.0
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def table(result: Result) -> str:
    trip, rate = result["round_trip"], result["throughput"]
    lines = ["build time, one round trip for the whole path"]
    lines += [
        f"  {row['relays']} relays and the target {row['median_ms']:8.2f} ms   fastest {row['fastest_ms']:.2f}"
        for row in result["build"]
    ]
    lines += ["round trip per hop, by echo"]
    lines += [
        f"  {hop['role']:<10} {hop['median_ms']:8.3f} ms   {hop['added_ms']:+.3f} ±{hop['error_ms']:.3f}"
        for hop in result["hops"]
    ]
    lines += [
        "round trip of 64 bytes to a server behind the target",
        f"  loopback TCP {trip['direct_ms']:10.3f} ms",
        f"  circuit      {trip['circuit_ms']:10.3f} ms     {trip['ratio']:.1f} times",
        f"throughput of one stream, {rate['megabytes']} MB",
        f"  loopback TCP {rate['direct_mb_per_s']:10.1f} MB/s",
        f"  circuit      {rate['circuit_mb_per_s']:10.1f} MB/s   {rate['ratio']:.3f} of it",
        f"  CPU          {rate['cpu_ms_per_mb']:10.1f} ms per MB, in all processes together",
    ]
    return "\n".join(lines)


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--builds", type=positive, default=9, help="circuits built for each number of hops")
    parser.add_argument("--megabytes", type=positive, default=64, help="size of one transfer")
    parser.add_argument("--rounds", type=positive, default=3, help="transfers each way of connecting")
    options = parser.parse_args()
    result = asyncio.run(measure(options.builds, options.megabytes, options.rounds))
    print(json.dumps(result) if options.json else table(result))


if __name__ == "__main__":
    main()
