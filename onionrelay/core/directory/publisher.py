"""A node's own reach records: the keys, revisions and places of what it publishes.

specs/05-attach-and-reach.md, "Publishing".
"""

from collections.abc import Iterable
from dataclasses import dataclass

from onionrelay.base.ids import NodeId
from onionrelay.base.limits import REVISION_SKIP, REVISION_SKIP_MOST, REVISION_STALE_STEP
from onionrelay.base.seams import Rng
from onionrelay.core.directory.descriptor import RelayEntry
from onionrelay.core.directory.placement import reach_keys, storers
from onionrelay.core.directory.reach import RecordSecret, next_revision, publish
from onionrelay.core.directory.table import RelayTable
from onionrelay.core.path.policy import PathPolicy
from onionrelay.crypto.signing import SigningSecret
from onionrelay.wire.reach import ReachContents


@dataclass(frozen=True, slots=True)
class Put:
    """One record to hand to one relay, through a circuit of its own."""

    period: int
    key: bytes
    record: bytes
    storer: RelayEntry


class Publisher:
    """Makes the records of one node. It holds the node key; record keys live for their period."""

    def __init__(self, node_secret: SigningSecret, policy: PathPolicy, rng: Rng) -> None:
        self._node_secret = node_secret
        self._policy = policy
        self._rng = rng
        self._secrets: dict[int, RecordSecret] = {}
        self._revisions: dict[int, int] = {}
        self._skips: dict[int, int] = {}  # how far ahead of what was stale the next revision will be
        self._latest = 0  # the unix time of the last publication

    def puts(
        self, contents: ReachContents, periods: Iterable[int], table: RelayTable, unix_now: int
    ) -> tuple[Put, ...]:
        """A new revision for each period, and everybody it goes to."""
        wanted = tuple(periods)
        self._latest = unix_now
        self._forget_all_but(wanted)
        puts: list[Put] = []
        for period in wanted:
            record = publish(self._secret(period), contents, self._next(period, unix_now), unix_now, self._rng)
            for key in reach_keys(NodeId(self._node_secret.public), period):
                puts += (Put(period, key, record, storer) for storer in storers(key, table, unix_now))
        return tuple(puts)

    def on_stale(self, period: int) -> None:
        """Storers hold a revision that this process does not remember: the next one is further ahead.

        By the minute, since every start begins at the same revision of the ten minutes, and skips alone would lead over
        the same steps as all the starts before, one more of them each time.
        """
        skip = self._skips.get(period, REVISION_SKIP)
        self._skips[period] = min(2 * skip, REVISION_SKIP_MOST)
        ahead = self._revisions.get(period, 0) + skip
        self._revisions[period] = next_revision(period, self._latest, ahead, step=REVISION_STALE_STEP)

    def _secret(self, period: int) -> RecordSecret:
        if period not in self._secrets:
            self._secrets[period] = RecordSecret.certify(self._node_secret, self._policy.net_id, period, self._rng)
        return self._secrets[period]

    def _next(self, period: int, unix_now: int) -> int:
        self._revisions[period] = next_revision(period, unix_now, self._revisions.get(period))
        return self._revisions[period]

    def _forget_all_but(self, periods: tuple[int, ...]) -> None:
        for period in [each for each in self._secrets if each not in periods]:
            del self._secrets[period], self._revisions[period]
            self._skips.pop(period, None)
