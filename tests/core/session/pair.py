"""Two sessions joined in memory, and an application at each end that keeps what it gets."""

from onionrelay.core.session import events
from onionrelay.core.session.session import Session
from tests.seeded import SeededRng


class End:
    """A session whose events are kept. `reads`: whether data count as consumed at once."""

    def __init__(self, *, is_opener, seed=0, reads=True):
        self.session = Session(is_opener=is_opener, rng=SeededRng(f"{is_opener}/{seed}"))
        self.reads = reads
        self.events = []
        self.data = {}
        self.sizes = []

    def packets(self, *, large_room=True):
        """Everything that can be sent now."""
        while (packet := self.session.next_packet(large_room=large_room)) is not None:
            self.events += self.session.take_events()
            self.sizes.append(len(packet))
            yield packet

    def take(self, packet):
        for event in self.session.on_packet(packet):
            self.events.append(event)
            if isinstance(event, events.DataArrived):
                self.data.setdefault(event.stream, bytearray()).extend(event.data)
                if self.reads:
                    self.session.consumed(event.stream, len(event.data))

    def saw(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class Pair:
    """A client's end and a target's. `run` lets packets go to and fro until neither end has any."""

    def __init__(self, seed=0):
        self.client = End(is_opener=True, seed=seed)
        self.target = End(is_opener=False, seed=seed)

    def run(self):
        while self.client.session.has_output or self.target.session.has_output:
            self.one_way(self.client, self.target)
            self.one_way(self.target, self.client)

    @staticmethod
    def one_way(sender, receiver):
        for packet in sender.packets():
            receiver.take(packet)

    def stream(self, port=80):
        """A stream that the client opened and the target accepted."""
        stream = self.client.session.open_stream(port)
        self.run()
        self.target.session.accept(stream)
        self.run()
        return stream
