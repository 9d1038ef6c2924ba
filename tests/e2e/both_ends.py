"""Plays what test_no_one_knows_both_ends.py judges: a network, pairs of client and target on it, a search of it all."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import onionrelay
from onionrelay.base.ids import NodeId
from onionrelay.base.limits import GROUPS_FULL
from onionrelay.core.path.groups import Side, address_group, side_of
from onionrelay.core.path.policy import PathPolicy
from onionrelay.net.system import SystemRng
from onionrelay.node.child import ChildProcess, Event
from onionrelay.node.home import RELAY_KEY, Home
from onionrelay.node.localnet import free_ports, temporary_folder
from onionrelay.node.network_file import NetworkFile
from onionrelay.testing.views import Fact, Sighting, View
from onionrelay.wire.address import Address
from onionrelay.wire.invite import Invite
from onionrelay.wire.reach import ReachRecord
from tests.e2e.ends import FAULTS, MARKER, PORT, REPEATS

ENDS = Path(__file__).with_name("ends.py")
RELAYS = GROUPS_FULL
PATIENCE = 30.0  # seconds, for what takes a few unless something is broken

# Relays by index; the first half of them are on the near side.
CLIENTS_SEED, TARGETS_SEED, CLIENTS_GUARD, TARGETS_GUARD = range(4)

# What is looked for
OWN_IDENTITY = "its own identity"
NODE_ID, NODE_SECRET, HANDLE_SECRET = "node id", "node id's secret", "handle's secret"
CLIENT_ADDRESS, TARGET_ADDRESS = "client's address", "target's address"
SENT, RECEIVED = "data from client to target", "data from target to client"
RECORD = "reach record's content"
WHAT_FAULTS_SHOW = frozenset({NODE_ID, SENT, RECEIVED})


def blinded_key(period: int) -> str:
    return f"blinded key of {period}"


def ciphertext(period: int) -> str:
    return f"reach record's ciphertext of {period}"


def handle_at(final: str) -> str:
    return f"handle at {final}"


def ticket_key_at(final: str) -> str:
    return f"ticket key at {final}"


@dataclass(frozen=True)
class Play:
    """One client and one target on the network, and what was then found where. Relays go by their relay ids."""

    looked_for: frozenset[str]
    seeds_and_guards: tuple[str, ...]  # see CLIENTS_SEED
    path: tuple[str, ...]  # from the guard to the final hop
    finals: frozenset[str]  # all that the target is attached to
    storers: dict[int, frozenset[str]]  # by period: in the hours before a change there are two records
    met_by_client: frozenset[str]  # relays it had a link to
    met_by_target: frozenset[str]
    relays: dict[str, Sighting]
    client: Sighting
    target: Sighting

    def roles(self, relay: str) -> tuple[str, ...]:
        """What a relay was in this play."""
        on_path = dict(zip(self.path, ("guard", "vanguard", "middle", "final hop"), strict=True))
        others = {
            "met by the client": self.met_by_client,
            "met by the target": self.met_by_target,
            "attached to": self.finals,
            "storer": frozenset[str]().union(*self.storers.values()),
        }
        return (*filter(None, [on_path.get(relay)]), *(role for role, holders in others.items() if relay in holders))


async def play_all() -> dict[str, Play]:
    """One play for each fault, on one network, at the same time. By the fault's name; "none" is the honest pair.

    In the faulty ones less is looked for, and it takes less time.
    """
    async with Network.running() as network:
        pairs = [Pair(network, number, fault) for number, fault in enumerate(FAULTS)]
        await asyncio.gather(*(pair.meet() for pair in pairs))
        return network.search(pairs)


class Network:
    """Relays as tapped processes, half of them on the near side, and everything else that runs."""

    def __init__(self, folder: Path) -> None:
        self.relays: list[Invite] = []
        self._folder = folder
        self._file: NetworkFile
        self._children: dict[str, ChildProcess] = {}
        self._events: dict[str, list[Event]] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator["Network"]:
        with temporary_folder() as folder:
            network = cls(folder)
            try:
                await network._start()
                yield network
            finally:
                await asyncio.gather(*(child.stop() for child in network._children.values()))

    async def _start(self) -> None:
        rng = SystemRng()
        names = [f"relay-{index}" for index in range(RELAYS)]
        for name, port in zip(names, ports_by_side(), strict=True):
            self.relays.append(Home(self.home(name)).init_relay([f"tls://127.0.0.1:{port}"], [], rng))
        seeds = self.relays[CLIENTS_SEED], self.relays[TARGETS_SEED]
        self._file = NetworkFile.create("both ends", seeds, testnet=True, rng=rng)
        self._file.write(self._folder / "network.toml")
        where = ("--network", self._folder / "network.toml", "--lifeline", 0, "--json", "-vv")
        for name in names:
            tapped = ("-m", "onionrelay.testing.tapped", self.taps(name))
            await self.start(name, *tapped, "relay", "run", "--home", self.home(name), *where)
        await asyncio.gather(*(self.event(name, "ready") for name in names))
        for seed in seeds:
            await self._until_all_are_known_to(seed)

    async def _until_all_are_known_to(self, seed: Invite) -> None:
        async with asyncio.timeout(PATIENCE):
            known = 0
            while known < RELAYS:
                async with onionrelay.Node(replace(self._file, seeds=(seed,))) as node:
                    _, known = node.anonymity

    def home(self, name: str) -> Path:
        return self._folder / name

    def taps(self, name: str) -> Path:
        return self._folder / "taps" / name

    def member(self, name: str, *, seed: int, guard: int) -> Path:
        """Gives a member a guard that it has used before; returns its network file, with one seed."""
        now = int(time.time())
        guards = [{"relay": str(self.relays[guard].relay_id), "added": now, "confirmed": now}]
        saved = json.dumps({"version": 1, "guards": guards, "vanguards": []})
        Home(self.home(name)).save_guards(self._file.net_id, saved)
        path = self._folder / f"{name}.toml"
        replace(self._file, seeds=(self.relays[seed],)).write(path)
        return path

    async def start(self, name: str, *arguments: object) -> None:
        """Starts a Python process."""
        events = self._events[name] = []
        program = [sys.executable, *map(str, arguments)]
        self._children[name] = await ChildProcess.start_program(name, program, self._folder, events.append)

    async def event(self, name: str, event: str) -> Event:
        """The first event of this kind, past or to come."""
        return await self._children[name].event(event, seconds=PATIENCE)

    def events(self, name: str, event: str) -> list[Event]:
        """Those that there were."""
        return [each for each in self._events[name] if each["event"] == event]

    def met_by(self, name: str) -> frozenset[str]:
        """The relays that this process had links to."""
        ids = {str(relay.endpoint.addresses[0]): str(relay.relay_id) for relay in self.relays}
        return frozenset(ids[address] for address in (self.taps(name) / "dialled").read_text().split())

    def search(self, pairs: list["Pair"]) -> dict[str, Play]:
        """Everybody for everything, once all has happened and while it all still runs."""
        for index, relay in enumerate(self.relays):
            name, relay_id = f"relay-{index}", relay.relay_id
            view = self._view(name)
            seed = (self.home(name) / RELAY_KEY).read_bytes().split()[2]
            own = Fact.of_bytes(OWN_IDENTITY, relay_id.raw, str(relay_id).encode(), seed)
            for pair in pairs:
                pair.relays[str(relay_id)] = view.search([own, *pair.facts()])
        return {pair.fault: pair.play(self._view(pair.client), self._view(pair.target)) for pair in pairs}

    def _view(self, name: str) -> View:
        home = (self.home(name), self._folder / f"{name}.stderr")
        return View(self._children[name].pid, taps=[self.taps(name)], home=home)


class Pair:
    """A client and a target, with a fault or none, and all that must be kept from somebody."""

    def __init__(self, network: Network, number: int, fault: str) -> None:
        self.fault = fault
        self.client, self.target = f"client-{number}", f"target-{number}"
        self.relays: dict[str, Sighting] = {}
        self._network = network
        self._client_address, self._target_address = f"127.201.113.{71 + number}", f"127.202.54.{181 + number}"
        self._sent, self._received = SystemRng().token(MARKER), SystemRng().token(MARKER)
        self._node_id: NodeId

    async def meet(self) -> None:
        """Returns when the data has been exchanged; both ends stay."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as service:
            port = service.sockets[0].getsockname()[1]
            await self._start_target(f"{PORT}=127.0.0.1:{port}")
            await self._start_client()
            await self._network.event(self.client, "done")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The TCP service behind the target."""
        if await reader.readexactly(MARKER * REPEATS) == self._sent * REPEATS:
            writer.write(self._received * REPEATS)
            await writer.drain()
        writer.close()

    async def _start_target(self, service: str) -> None:
        network = self._network
        file = network.member(self.target, seed=TARGETS_SEED, guard=TARGETS_GUARD)
        await network.start(
            self.target, ENDS, self.fault, "target", self._target_address, network.taps(self.target),
            "listen", "--home", network.home(self.target), "--network", file, "--service", service, "--lifeline", 0,
            "--json", "-vv",
        )  # fmt: skip
        self._node_id = NodeId.parse((await network.event(self.target, "ready"))["node_id"])
        await network.event(self.target, "reachable")

    async def _start_client(self) -> None:
        network = self._network
        file = network.member(self.client, seed=CLIENTS_SEED, guard=CLIENTS_GUARD)
        await network.start(
            self.client, ENDS, self.fault, "client", self._client_address, network.taps(self.client),
            network.home(self.client), file, self._node_id, self._sent.hex(), self._received.hex(),
        )  # fmt: skip

    def facts(self) -> list[Fact]:
        """What is looked for."""
        facts = [*self._facts_of_the_ends(), *self._facts_of_the_record(), *self._facts_of_the_attachments()]
        return [fact for fact in facts if self.fault == "none" or fact.name in WHAT_FAULTS_SHOW]

    def _facts_of_the_ends(self) -> Iterator[Fact]:
        yield Fact.of_bytes(NODE_ID, self._node_id.raw, str(self._node_id).encode())
        yield Fact.of_bytes(NODE_SECRET, Home(self._network.home(self.target)).node_secret().seed)
        yield Fact.of_address(CLIENT_ADDRESS, self._client_address)
        yield Fact.of_address(TARGET_ADDRESS, self._target_address)
        yield Fact.of_bytes(SENT, self._sent)
        yield Fact.of_bytes(RECEIVED, self._received)

    def _facts_of_the_record(self) -> Iterator[Fact]:
        yield Fact.of_bytes(RECORD, bytes.fromhex(self._network.events(self.target, "sealed")[0]["onion_keys"]))
        for period, record in self._records().items():
            yield Fact.of_bytes(blinded_key(period), record.blinded.raw)
            yield Fact.of_bytes(ciphertext(period), record.ciphertext)

    def _facts_of_the_attachments(self) -> Iterator[Fact]:
        for attachment in self._network.events(self.target, "attach"):
            final = attachment["final"]
            yield Fact.of_bytes(handle_at(final), bytes.fromhex(attachment["handle"]))
            yield Fact.of_bytes(ticket_key_at(final), bytes.fromhex(attachment["k_ticket"]))
            yield Fact.of_bytes(HANDLE_SECRET, bytes.fromhex(attachment["handle_secret"]))

    def _stored(self) -> list[tuple[str, ReachRecord]]:
        """Who took which record, in order."""
        events = self._network.events(self.target, "stored")
        return [(event["storer"], ReachRecord.decode(bytes.fromhex(event["record"]))) for event in events]

    def _records(self) -> dict[int, ReachRecord]:
        """The latest of each period."""
        return {record.period: record for _, record in self._stored()}

    def play(self, client: View, target: View) -> Play:
        """What has happened, and what was found."""
        network, facts = self._network, self.facts()
        special = (CLIENTS_SEED, TARGETS_SEED, CLIENTS_GUARD, TARGETS_GUARD)
        return Play(
            looked_for=frozenset({OWN_IDENTITY, *(fact.name for fact in facts)}),
            seeds_and_guards=tuple(str(network.relays[index].relay_id) for index in special),
            path=tuple(network.events(self.client, "done")[0]["path"]),
            finals=frozenset(event["final"] for event in network.events(self.target, "attach")),
            storers={
                period: frozenset(storer for storer, record in self._stored() if record.period == period)
                for period in self._records()
            },
            met_by_client=network.met_by(self.client),
            met_by_target=network.met_by(self.target),
            relays=self.relays,
            client=client.search(facts),
            target=target.search(facts),
        )


def ports_by_side() -> list[int]:
    """A free port of 127.0.0.1 for each relay. On a test network the port decides the side: near ones come first."""
    policy = PathPolicy(bytes(8), testnet=True)
    ports: dict[Side, list[int]] = {side: [] for side in Side}
    for port in free_ports(10 * RELAYS):
        ports[side_of(address_group(Address("127.0.0.1", port), policy))].append(port)
    return ports[Side.NEAR][: RELAYS // 2] + ports[Side.FAR][: RELAYS // 2]
