"""A target among final hops, in virtual time: the effects of an AttachmentSet carried out against real FinalTables."""

import heapq
import itertools

from onionrelay.core.attach.attachment import AttachState
from onionrelay.core.attach.final import FinalTable
from onionrelay.core.attach.target import AttachmentSet, CloseAttachment, Dial, Publish, SendAttach
from onionrelay.core.path.candidates import Candidates
from onionrelay.wire.address import Address
from onionrelay.wire.attach import Attach, VoucherRequest
from tests.core.relays import DAY, NOW, TESTNET, local_relays, table_of
from tests.seeded import SeededRng

DELAY = 0.05
HOME = Address("127.0.0.1", 50_000)


class World:
    def __init__(self, relays=None, *, seed=1, count=3, policy=TESTNET, stored=True):
        self.relays = {relay.relay_id: relay for relay in relays or local_relays(8)}
        self.policy = policy
        self.table = table_of(*self.relays.values(), policy=policy)
        self.finals = {relay_id: FinalTable(relay_id, relay.signing, policy) for relay_id, relay in self.relays.items()}
        self.delays = {relay_id: DELAY * number for number, relay_id in enumerate(self.relays, 1)}
        self.dead = set()
        self.silent = set()
        self.stored = stored
        self.set = AttachmentSet(SeededRng(seed), count)
        self.now = 1000.0
        self.published = []
        self.closed = []
        self.dials = []
        self.lives = {}
        self._events = []
        self._order = itertools.count()

    @property
    def unix_now(self):
        return NOW + int(self.now - 1000)

    @property
    def up(self):
        return [each for each in self.set.attachments if each.is_up]

    def start(self):
        self.later(0, self.refresh)
        return self

    def refresh(self):
        """New descriptors, twice a day."""
        for relay in self.relays.values():
            relay.seq += 1
            relay.cert = relay.certify(self.unix_now + 20 * DAY)
            if relay.relay_id not in self.dead:
                self.table.add(relay.describe(self.unix_now), self.unix_now)
        self.table.expire(self.unix_now)
        candidates = Candidates.of(self.table, self.policy, self.unix_now)
        self.apply(self.set.on_candidates(candidates, self.now, self.unix_now))
        self.later(DAY / 2, self.refresh)

    def later(self, delay, action, *arguments):
        heapq.heappush(self._events, (self.now + delay, next(self._order), action, arguments))

    def run(self, seconds):
        end = self.now + seconds
        stuck = 0
        while True:
            deadline = self.set.deadline
            due = min(self._events[0][0] if self._events else end, end if deadline is None else deadline)
            if due >= end:
                self.now = end
                return self
            stuck = stuck + 1 if due <= self.now else 0
            assert stuck < 60, "time does not pass"
            self.now = max(self.now, due)
            if self._events and self._events[0][0] <= self.now:
                _, _, action, arguments = heapq.heappop(self._events)
                action(*arguments)
            else:
                self.apply(self.set.on_timeout(self.now, self.unix_now))

    def apply(self, effects):
        for effect in effects:
            match effect:
                case Dial(attachment):
                    self.dials.append((self.now, attachment))
                    self.later(self.delays[attachment.final.relay_id], self.dialled, attachment)
                case SendAttach(attachment, message):
                    self.later(self.delays[attachment.final.relay_id], self.receive, attachment, message)
                case CloseAttachment(attachment, why):
                    self.closed.append((self.now, attachment, why))
                    self.finals[attachment.final.relay_id].on_link_lost(attachment)
                case Publish(entries, periods):
                    self.published.append((self.now, entries, periods))
                    self.later(0.2, self.stored_it)

    def stored_it(self):
        self.apply(self.set.on_published(stored=self.stored, now=self.now, unix_now=self.unix_now))

    def dialled(self, attachment):
        if attachment.state is AttachState.ENDED or attachment.final.relay_id in self.silent:
            return
        if attachment.final.relay_id in self.dead:
            self.apply(self.set.on_link_lost(attachment, self.now, self.unix_now))
        else:
            self.apply(self.set.on_link_up(attachment, bytes(32), self.now, self.unix_now))

    def receive(self, attachment, message):
        final = self.finals[attachment.final.relay_id]
        if attachment.final.relay_id in self.dead | self.silent:
            return
        match message:
            case Attach():
                answer = final.on_attach(attachment, HOME, message, bytes(32), unix_now=self.unix_now, now=self.now)
                self.lives[attachment] = message.ttl
            case VoucherRequest():
                answer = final.on_renew(attachment, self.unix_now)
            case _:
                final.on_link_lost(attachment)
                return
        self.later(self.delays[attachment.final.relay_id], self.answer, attachment, answer)

    def answer(self, attachment, message):
        self.apply(self.set.on_message(attachment, message, self.now, self.unix_now))

    def kill(self, relay_id):
        """The relay dies, and the target's link to it with it."""
        self.dead.add(relay_id)
        self.finals[relay_id] = FinalTable(relay_id, self.relays[relay_id].signing, self.policy)
        for attachment in self.set.attachments:
            if attachment.final.relay_id == relay_id:
                self.apply(self.set.on_link_lost(attachment, self.now, self.unix_now))
