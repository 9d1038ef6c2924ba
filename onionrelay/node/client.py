"""The network as one node sees it: the relay table, its guards, and circuits built along chosen paths.

Everything that a caller and a target have in common. Not here: what runs over a circuit (`node.api`), the search for
reach records (`node.records`), and attachments (`node.target`).
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from onionrelay.base.errors import (
    Attempt,
    CircuitFailed,
    NetworkError,
    NoNetwork,
    NoPath,
    ProtocolViolation,
    TimedOut,
)
from onionrelay.base.ids import NodeId, RelayId
from onionrelay.base.limits import (
    BUILD_BURST_CLIENT_LINK,
    BUILD_RATE_CLIENT_LINK,
    CIRCUIT_MAX_LIFE,
    DEFAULT_HOPS,
    PATHS_TRIED,
    TABLE_FETCH,
    TABLE_REFRESH,
    TABLE_STALE,
    TIME_WINDOW,
)
from onionrelay.base.seams import Rng
from onionrelay.core.directory.clock import network_window, require_clock
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.directory.reach import OpenedRecord
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.link.channel import Channel, LinkPurpose
from onionrelay.core.link.handshake import ClientHandshake, Peer
from onionrelay.core.path.anonymity import anonymity_level
from onionrelay.core.path.candidates import Candidates
from onionrelay.core.path.choose import Path, choose_path, choose_storer_path
from onionrelay.core.path.guards import Guards
from onionrelay.core.path.itinerary import plan_circuit
from onionrelay.core.path.policy import Anonymity, PathPolicy
from onionrelay.crypto.onion_keys import OnionPublic
from onionrelay.node.circuit import Circuit, HopInfo
from onionrelay.node.driver import Driver
from onionrelay.node.home import Home
from onionrelay.node.links import Links, dial_relay
from onionrelay.node.network_file import NetworkFile
from onionrelay.node.pace import Pace
from onionrelay.node.requests import Requests
from onionrelay.wire.directory import Question, from_control
from onionrelay.wire.invite import Invite
from onionrelay.wire.link import Feature

log = logging.getLogger("onionrelay.client")

FEATURES = Feature.CIRCUITS | Feature.ATTACH | Feature.DIR


class _Fetched(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a saved table: the unix time at which seeds gave it, and `Client._skews`."""

    at: int
    skews: dict[str, int]


class Client:
    """See the module. `start` before anything else; `save` before the end."""

    def __init__(self, driver: Driver, home: Home, network: NetworkFile, policy: PathPolicy, rng: Rng) -> None:
        self.policy = policy
        self.table = RelayTable(policy)
        self.guards = Guards()
        self.driver = driver
        self.rng = rng
        self._home = home
        self._network = network
        self._requests = Requests(driver)
        self._links = Links(driver, self.handshake, LinkPurpose.GUARD)
        self._skews: dict[RelayId, int] = {}  # time windows by which a relay's clock was ahead of ours, in its own word
        self._paces: dict[Channel, Pace] = {}
        self._refreshed = -TABLE_STALE  # when this process last asked for the table
        self._fetched: int | None = None  # the unix time at which it last got it
        self._candidates: Candidates | None = None
        self._candidates_version = -1
        self._guards_saved: tuple[int, int] | None = None

    # The relay table

    async def start(self) -> None:
        """Loads what is remembered and, unless that is fresh, fetches the relay table. NoNetwork when there is none."""
        if guards := self._home.load_guards(self._network.net_id, lambda text: Guards.load(text.encode())):
            self.guards = guards
        self._guards_saved = self.guards.version
        if not self._load_table():
            await self.refresh_table()

    def _load_table(self) -> bool:
        """Whether the table from an earlier run is so fresh that no seed has to be asked, which would see who asks."""
        data = self._home.load_table(self._network.net_id)
        if data is None:
            return False
        now = self.driver.unix_now()
        head, _, body = data.partition(b"\n")
        try:
            fetched = msgspec.json.decode(head, type=_Fetched)
            skews = {RelayId.parse(relay): skew for relay, skew in fetched.skews.items()}
            self.table = RelayTable.load(body, self.policy, now)
        except ValueError as error:
            log.info("the saved relay table is not used: %s", error)
            return False
        level, _ = self.anonymity
        if not 0 <= now - fetched.at < TABLE_REFRESH or level < self.policy.min_anonymity or not len(self.table):
            return False
        self._skews = skews
        return True

    async def refresh_table(self) -> None:
        """Fetches the whole table from every seed that answers. NoNetwork when none does and none was known before."""
        self._refreshed = asyncio.get_running_loop().time()
        seeds = list(self._network.seeds)
        results = await asyncio.gather(*map(self._fetch_from, seeds), return_exceptions=True)
        failures: list[str] = []
        for seed, result in zip(seeds, results, strict=True):
            if isinstance(result, NetworkError | ProtocolViolation):
                address, why = str(seed.endpoint.addresses[0]), str(result)
                failures.append(why if address in why else f"{address}: {why}")
            elif isinstance(result, BaseException):
                raise result
        self.table.expire(self.driver.unix_now())
        if len(failures) == len(seeds) and not len(self.table):
            raise NoNetwork(f"no seed of the network {self._network.name!r} answers: {'; '.join(failures)}")
        require_clock(self._windows, self.driver.unix_now())
        if len(failures) < len(seeds):
            self._fetched = self.driver.unix_now()

    async def _fetch_from(self, seed: Invite) -> None:
        channel = await dial_relay(self.driver, seed.relay_id, seed.endpoint, self.handshake, LinkPurpose.DIRECTORY)
        try:
            async with asyncio.timeout(TABLE_FETCH) as limit:
                await self._requests.fetch_table(channel, self.table)
        except TimeoutError:
            if limit.expired():
                raise TimedOut("the relay table", TABLE_FETCH) from None
            raise
        finally:
            self.driver.close_link(channel)

    async def refresh_if_stale(self) -> bool:
        """After a failure, whether the table is another one now: relays come, and restarted ones have new keys."""
        if asyncio.get_running_loop().time() - self._refreshed < TABLE_STALE:
            return False
        before = self.table.version
        try:
            await self.refresh_table()
        except NetworkError as error:
            log.info("the relay table is not refreshed: %s", error)
        return self.table.version != before

    def save(self) -> None:
        """Keeps the relay table for the next start, if this process has fetched it, and guards that have changed."""
        if self._fetched is not None:
            fetched = _Fetched(self._fetched, {str(relay_id): skew for relay_id, skew in self._skews.items()})
            self._home.save_table(self._network.net_id, msgspec.json.encode(fetched) + b"\n" + self.table.dump())
        self._save_guards()

    def _save_guards(self) -> None:
        if self.guards.version != self._guards_saved:
            self._home.save_guards(self._network.net_id, self.guards.dump().decode())
            self._guards_saved = self.guards.version

    @property
    def anonymity(self) -> tuple[Anonymity, int]:
        """What the network offers now, and the number of address groups that rests on."""
        return anonymity_level(self.table, self.policy, self.driver.unix_now())

    # Links

    def handshake(self, relay_id: RelayId, leaf_digest: bytes) -> ClientHandshake:
        """Of an anonymous client that expects this relay."""
        return ClientHandshake(
            net_id=self._network.net_id,
            expected=relay_id,
            leaf_digest=leaf_digest,
            identity=None,
            rng=self.rng,
            features=FEATURES,
        )

    def on_link_up(self, channel: Channel, peer: Peer) -> None:
        """See Owner."""
        self.guards.on_network(self.driver.unix_now())
        if peer.relay_id is not None:
            self._skews[peer.relay_id] = peer.window - self.driver.unix_now() // TIME_WINDOW
        self._links.on_up(channel, peer)

    def on_link_down(self, channel: Channel, why: str) -> None:
        """See Owner."""
        self._links.on_down(channel)
        self._paces.pop(channel, None)
        self._requests.on_link_down(channel, why)

    def on_directory(self, channel: Channel, cmd: int, kind: int, body: bytes) -> None:
        """An answer about relays. Raises ProtocolViolation for a question: this node is no relay."""
        request_id, message = from_control(cmd, kind, body)
        if isinstance(message, Question):
            raise ProtocolViolation("a client is asked what only relays know")
        self._requests.on_answer(channel, request_id, message)

    # Circuits

    async def open_to_storer(self, storer: RelayEntry) -> Circuit:
        """A circuit that ends at this relay. Raises NoPath or CircuitFailed."""

        def draw(failed: set[RelayId]) -> Path:
            current = self.table.get(storer.relay_id) or storer
            if storer.relay_id in failed:
                raise NoPath("the relay that keeps the record has failed")
            return choose_storer_path(
                self.table,
                current,
                self.guards,
                self.rng,
                self.policy,
                unix_now=self.driver.unix_now(),
                exclude=failed,
                candidates=self.candidates,
            )

        return await self._open(draw, None, "no circuit to a relay that keeps records", [])

    async def open_to_target(self, node_id: NodeId, record: OpenedRecord, hops: int = DEFAULT_HOPS) -> Circuit:
        """A circuit to a node through one of its final hops, drawn at random; through another one if that fails.

        Raises NoPath, or CircuitFailed with one attempt for every final hop that did not work, and why.
        """

        def draw(failed: set[RelayId]) -> Path:
            return choose_path(
                self.table,
                record.finals,
                self.guards,
                self.rng,
                self.policy,
                unix_now=self.driver.unix_now(),
                hops=hops,
                exclude=failed,
                candidates=self.candidates,
            )

        rejected = [Attempt(hops, self._name(final), "final", why) for final, why in record.rejected]
        return await self._open(draw, (node_id, record.onion), "the node cannot be reached", rejected)

    async def _open(
        self,
        draw: Callable[[set[RelayId]], Path],
        target: tuple[NodeId, OnionPublic] | None,
        failure: str,
        attempts: list[Attempt],
    ) -> Circuit:
        """Tries paths that `draw` gives, told which relays have failed, until one works or none is left."""
        failed: list[RelayEntry] = []
        doubted: set[RelayId] = set()
        for _ in range(PATHS_TRIED):
            try:
                path = draw({entry.relay_id for entry in failed if not self._is_renewed(entry)})
            except NoPath as error:
                if not attempts:
                    raise
                failure = f"{failure}, and there is no other path: {error}"
                break
            try:
                return await self._build(path, target)
            except CircuitFailed as error:
                attempts += error.attempts
                if error.hop > len(path.relays):
                    break  # the node itself answered: it would say the same behind another final hop
                failed += self._blamed(path, error.attempts[-1], doubted)
            await self.refresh_if_stale()
        raise CircuitFailed(failure, attempts)

    async def _build(self, path: Path, target: tuple[NodeId, OnionPublic] | None) -> Circuit:
        guard = path.guard
        hops = describe(path, with_target=target is not None)
        try:
            channel = await self._links.get(guard.relay_id, guard.endpoint)
        except NetworkError as error:
            attempt = Attempt(1, hops[0].address or "", "guard", str(error))
            raise CircuitFailed("the guard does not answer", [attempt]) from error
        await self._pace(channel).turn()
        plan = plan_circuit(path, window=self._window(), lifetime=CIRCUIT_MAX_LIFE, target=target)
        circuit = await Circuit.open(self.driver, channel, plan, hops, path.anonymity)
        try:
            self._on_success(path)
        except BaseException:
            circuit.close()
            raise
        return circuit

    def _pace(self, channel: Channel) -> Pace:
        """What the guard takes on this link, less one in case two builds arrive closer together than they left."""
        if channel not in self._paces:
            self._paces[channel] = Pace(BUILD_RATE_CLIENT_LINK, BUILD_BURST_CLIENT_LINK - 1)
        return self._paces[channel]

    def _on_success(self, path: Path) -> None:
        self.guards.on_success(path.guard.relay_id, self.driver.unix_now(), self.rng)
        if path.vanguard is not None:
            self.guards.vanguards.on_success(path.vanguard.relay_id)
        self._save_guards()

    def _is_renewed(self, entry: RelayEntry) -> bool:
        """Whether the relay has published another descriptor since, as after a restart: then it may be tried again."""
        known = self.table.get(entry.relay_id)
        return known is not None and known.digest != entry.digest

    def _blamed(self, path: Path, attempt: Attempt, doubted: set[RelayId]) -> tuple[RelayEntry, ...]:
        """Whom to leave out of the next path; a guard or vanguard among them is passed over for a while.

        The hop that refused; or the one behind it, if it says that this one is to blame. That may be a lie: the second
        time the same hop says so, it is left out, too, unless it is the guard, of which there is no other to be had
        for the asking. All but guard and vanguard when it cannot be said which hop it was: whoever is behind them can
        bring that about, and would walk us through one vanguard after the other. Who is overloaded is at no fault:
        else a flood of builds would make a guard's clients choose another one.
        """
        relays, at = path.relays, attempt.hop - 1
        if not attempt.hop:
            suspects = tuple(relay for relay in relays[1:] if relay is not path.vanguard)
        elif attempt.status.startswith("next ") and attempt.hop < len(relays):
            suspects = relays[at + 1 : at + 2] + (relays[at : at + 1] if relays[at].relay_id in doubted else ())
            if at:
                doubted.add(relays[at].relay_id)
        else:
            suspects = relays[at : at + 1]
        if attempt.status == "overloaded":
            return suspects
        now = self.driver.unix_now()
        if path.guard in suspects:
            self.guards.on_failure(path.guard.relay_id, now)
        if path.vanguard is not None and path.vanguard in suspects:
            self.guards.vanguards.on_failure(path.vanguard.relay_id, now)
        return suspects

    @property
    def candidates(self) -> Candidates:
        """Which relays may stand where, by the table as it is."""
        now = self.driver.unix_now()
        known = self._candidates
        if known is None or self._candidates_version != self.table.version or now - known.unix_now >= TIME_WINDOW:
            known = self._candidates = Candidates.of(self.table, self.policy, now)
            self._candidates_version = self.table.version
        return known

    @property
    def _windows(self) -> list[int]:
        """What time it is, as a number of time windows, by the clocks of the relays met so far."""
        own = self.driver.unix_now() // TIME_WINDOW
        return [own + skew for skew in self._skews.values()]

    def _window(self) -> int:
        """The time for build records: the network's, for our own clock's error would mark us."""
        window = network_window(self._windows)
        return window if window is not None else self.driver.unix_now() // TIME_WINDOW

    def _name(self, relay_id: RelayId) -> str:
        entry = self.table.get(relay_id)
        return str(entry.endpoint.addresses[0]) if entry else str(relay_id)


def describe(path: Path, *, with_target: bool) -> tuple[HopInfo, ...]:
    """The hops of a path for people."""
    hops = [
        HopInfo(position, role, str(relay.relay_id), str(relay.endpoint.addresses[0]))
        for position, (role, relay) in enumerate(zip(path.roles, path.relays, strict=True), 1)
    ]
    if with_target:
        hops.append(HopInfo(len(hops) + 1, "target"))
    return tuple(hops)
