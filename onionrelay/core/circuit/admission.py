"""Which builds a relay or target takes, and what it makes of them. specs/03-build.md, "A build arrives".

Before any decryption stand the limits, which answer BUSY; the keys to try are chosen by the link. After it stand the
clock, the replay memory and policy, which answer a sealed status that only the client reads.
"""

from typing import Protocol

from onionrelay.base.errors import BuildUnopenable, DestroyReason, MalformedMessage, ProtocolViolation
from onionrelay.base.ids import HandleKey, RelayId
from onionrelay.base.limits import (
    BUILD_BURST_CLIENT_LINK,
    BUILD_RATE_CLIENT_LINK,
    CIRCUIT_MAX_LIFE,
    CIRCUITS,
    CLIENT_HALF_OPEN_BUILDS,
    HALF_OPEN_BUILDS,
    HALF_OPEN_BUILDS_PER_LINK,
    RING_BURST,
    RING_RATE,
    SESSIONS_PER_TARGET,
)
from onionrelay.core.circuit.hop import Ends, Hop
from onionrelay.core.circuit.keyring import Admittance, KeySet
from onionrelay.core.link.channel import Channel, LinkPurpose
from onionrelay.core.runtime import Runtime
from onionrelay.core.token_bucket import TokenBucket
from onionrelay.crypto.build import OpenedBuild, open_build
from onionrelay.wire.build import BuildRecord, BuildStatus, Role
from onionrelay.wire.descriptor import Roles

_WILLING = {Role.FORWARD: Roles.MIDDLE, Role.HANDLE: Roles.FINAL, Role.ENDPOINT: ~Roles(0)}
_RETRY_AFTER = 60  # seconds, the detail of OVERLOADED when the replay memory is full


class FinalTable(Protocol):
    """The attachments a final hop holds (core/attach/final.py)."""

    def authorise(
        self, handle: bytes, ticket: bytes, ephemeral: bytes, now: float, unix_now: int
    ) -> Channel | BuildStatus:
        """The link to the target that attached `handle`, or why this build does not get there."""
        ...


class Admission:
    """See the module. An `Examiner` to its hops."""

    def __init__(self, runtime: Runtime, *, testnet: bool, finals: FinalTable | None, roles: Roles) -> None:
        self._runtime = runtime
        self._testnet = testnet
        self._finals = finals
        self._roles = roles
        self._decoy = KeySet.decoy(runtime.rng, runtime.unix_now)

    def begin(self, channel: Channel, circ_id: int, gen: int, body: bytes) -> None:
        """The first cell of a BUILD."""
        if not channel.is_peers(circ_id):
            raise ProtocolViolation("a BUILD under a circuit id of this end")
        if self._is_shed(channel):
            channel.refuse(circ_id, DestroyReason.BUSY)
            return
        hop = Hop(self._runtime, self, channel, circ_id, gen)
        hop.on_build(hop.up, gen, body)

    def _is_shed(self, channel: Channel) -> bool:
        runtime = self._runtime
        return (
            runtime.refuses_circuits
            or runtime.circuits >= CIRCUITS
            or runtime.half_open >= HALF_OPEN_BUILDS
            or channel.half_open >= (CLIENT_HALF_OPEN_BUILDS if channel.is_client_link else HALF_OPEN_BUILDS_PER_LINK)
            or len(channel.sides) >= channel.circuit_limit
            or not self._bucket(channel).take(runtime.now)
        )

    def _bucket(self, channel: Channel) -> TokenBucket:
        if channel.build_bucket is None:
            channel.build_bucket = TokenBucket(*_build_rate(channel), self._runtime.now)
        return channel.build_bucket

    def examine(self, hop: Hop, message: bytes) -> None:
        """All of BUILD is there: opens it with the keys of the link it came on, and decides."""
        runtime = self._runtime
        keys = hop.up.channel.build_keys or self._decoy
        try:
            opened = open_build(message, keys.ring.secrets, keys.identity, runtime.net_id, runtime.rng)
        except BuildUnopenable as fault:
            hop.destroy(fault.reason, str(fault))
            return
        try:
            record = BuildRecord.decode(opened.plaintext)
        except MalformedMessage:
            hop.accept(opened)
            hop.refuse(BuildStatus.BAD_RECORD)
            return
        admittance = keys.ring.admit(opened.secret_index, opened.replay_tag, record.window, runtime.unix_now)
        if admittance is Admittance.REPLAYED:
            # Like a record that is not for us: who replays it is not its client and could not read an answer.
            hop.destroy(DestroyReason.UNOPENABLE, "a replayed build")
            return
        hop.accept(opened)
        hop.obey(record)
        match admittance:
            case Admittance.CLOCK:
                hop.refuse(BuildStatus.CLOCK)
            case Admittance.FULL:
                hop.refuse(BuildStatus.OVERLOADED, _RETRY_AFTER)
            case Admittance.FRESH:
                self._decide(hop, keys, opened, record)

    def _decide(self, hop: Hop, keys: KeySet, opened: OpenedBuild, record: BuildRecord) -> None:
        if not 0 < record.lifetime <= CIRCUIT_MAX_LIFE:
            hop.refuse(BuildStatus.LIFETIME)
        elif keys.is_node:
            self._reach_node(hop, record)
        elif not self._is_willing(record.role, hop.up.channel):
            hop.refuse(BuildStatus.POLICY)
        else:
            self._pass_on(hop, keys, opened, record)

    def _is_willing(self, role: Role, channel: Channel) -> bool:
        """Whether this relay volunteers for what a record asks: as a guard where the client itself is the peer."""
        if channel.is_client_link:
            return bool(self._roles & Roles.GUARD) and (role is not Role.HANDLE or bool(self._roles & Roles.FINAL))
        return bool(self._roles & _WILLING[role])

    def _reach_node(self, hop: Hop, record: BuildRecord) -> None:
        if record.role is not Role.ENDPOINT:
            hop.refuse(BuildStatus.BAD_RECORD)
        elif self._runtime.node_ends >= SESSIONS_PER_TARGET:
            hop.refuse(BuildStatus.TARGET_REFUSED)
        else:
            hop.end_here(Ends.AT_NODE)

    def _pass_on(self, hop: Hop, keys: KeySet, opened: OpenedBuild, record: BuildRecord) -> None:
        match record.next_id:
            case None:
                hop.end_here(Ends.AT_RELAY)
            case RelayId() as relay_id:
                if relay_id.raw == keys.identity:
                    hop.refuse(BuildStatus.BAD_RECORD)
                elif not self._testnet and not all(address.is_public for address in record.endpoint.addresses):
                    hop.refuse(BuildStatus.POLICY)
                else:
                    hop.dial(relay_id, record.endpoint)
            case HandleKey() as handle:
                self._ring(hop, handle, opened, record)

    def _ring(self, hop: Hop, handle: HandleKey, opened: OpenedBuild, record: BuildRecord) -> None:
        if self._finals is None:
            hop.refuse(BuildStatus.POLICY)
            return
        now, unix_now = self._runtime.now, self._runtime.unix_now
        answer = self._finals.authorise(handle.raw, record.ticket, opened.ephemeral, now, unix_now)
        if isinstance(answer, Channel):
            hop.call(answer)
        else:
            hop.refuse(answer)


def _build_rate(channel: Channel) -> tuple[float, float]:
    """Builds a second and burst that a link may bring, by what its peer is."""
    if channel.is_client_link or channel.build_keys is None:
        return BUILD_RATE_CLIENT_LINK, BUILD_BURST_CLIENT_LINK
    if channel.purpose is LinkPurpose.ATTACHMENT:
        return 2 * RING_RATE, 2 * RING_BURST  # twice what an honest final hop lets through
    return float(CIRCUITS), float(CIRCUITS)  # other relays: bounded by the half-open builds of a link
