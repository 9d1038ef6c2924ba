"""What each hop of a chosen path is told: from relays to build records (specs/03-build.md, "The record")."""

from onionrelay.base.ids import NodeId
from onionrelay.core.circuit.plan import CircuitPlan, PlannedHop
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.path.choose import Path
from onionrelay.crypto.onion_keys import OnionPublic
from onionrelay.wire.build import BuildRecord, Role


def plan_circuit(
    path: Path, *, window: int, lifetime: int, target: tuple[NodeId, OnionPublic] | None = None, bulk: bool = True
) -> CircuitPlan:
    """The plan of a circuit along `path`, and on to `target` when the path leads to a final hop.

    `window` is unix time // 600 as the network has it, `lifetime` in seconds, a multiple of 10; both, and `bulk`, are
    the same in all records, so that they mark no hop.
    """

    def record(role: Role, after: RelayEntry | None = None) -> BuildRecord:
        if after is None:
            return BuildRecord(role=role, window=window, lifetime=lifetime, bulk=bulk)
        return BuildRecord(
            role=role, window=window, lifetime=lifetime, bulk=bulk, next_id=after.relay_id, endpoint=after.endpoint
        )

    *passing, last = path.relays
    hops = [
        PlannedHop(entry.relay_id.raw, entry.onion, record(Role.FORWARD, after))
        for entry, after in zip(passing, path.relays[1:], strict=True)
    ]
    if path.final is None or target is None:
        hops.append(PlannedHop(last.relay_id.raw, last.onion, record(Role.ENDPOINT)))
        return CircuitPlan(tuple(hops), lifetime)
    node_id, onion = target
    ringing = BuildRecord(role=Role.HANDLE, window=window, lifetime=lifetime, bulk=bulk, next_id=path.final.handle)
    hops.append(PlannedHop(last.relay_id.raw, last.onion, ringing))
    hops.append(PlannedHop(node_id.raw, onion, record(Role.ENDPOINT)))
    return CircuitPlan(tuple(hops), lifetime, k_ticket=path.final.k_ticket)
