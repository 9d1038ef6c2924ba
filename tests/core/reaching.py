"""A node that is attached to final hops, and the records it publishes, right and wrong."""

from onionrelay.base.ids import HandleKey, NodeId
from onionrelay.core.attach.voucher import issue_voucher
from onionrelay.core.directory.reach import RecordSecret, publish
from onionrelay.crypto.blind import period_at
from onionrelay.crypto.signing import SigningSecret
from onionrelay.wire.reach import FinalEntry, ReachContents
from tests.core.relays import DAY, FEATURES, NET, NOW, ONION
from tests.seeded import SeededRng

PERIOD = period_at(NOW)


class Node:
    """A node with its key. Its handles are numbered."""

    def __init__(self, name="node"):
        self.rng = SeededRng(name)
        self.secret = SigningSecret.generate(self.rng)
        self.node_id = NodeId(self.secret.public)

    def handle(self, number):
        return HandleKey(SigningSecret.generate(SeededRng(f"{self.node_id} {number}")).public)

    def final(self, relay, number=0, unix_now=NOW, **changes):
        settings = {"net_id": NET, "final": relay.relay_id, "handle": self.handle(number), "until": NOW + 9 * DAY}
        settings |= {"unix_now": unix_now, "max_circuits": 64, "builds_per_minute": 120}
        return FinalEntry(issue_voucher(relay.signing, **settings | changes), SeededRng(number).token(32))

    def contents(self, *finals, **changes):
        fields = {"node_id": self.node_id, "onion_x25519": ONION.x25519, "onion_mlkem": ONION.mlkem}
        return ReachContents(**fields | {"features": FEATURES, "finals": finals} | changes)

    def record_secret(self, period=PERIOD, net_id=NET):
        return RecordSecret.certify(self.secret, net_id, period, self.rng)

    def record(self, *finals, revision=1, unix_now=NOW, period=PERIOD, net_id=NET, secret=None, contents=None):
        secret = secret or self.record_secret(period, net_id)
        return publish(secret, contents or self.contents(*finals), revision, unix_now, self.rng)
