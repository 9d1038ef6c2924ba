"""Two sessions and random applications: what is written arrives, once and in order, and no bound is ever broken."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from onionrelay.base.limits import SESSION_WINDOW
from onionrelay.core.session import events
from onionrelay.core.session.session import Session
from onionrelay.wire.frames import RefusalReason, StreamCode
from tests.seeded import SeededRng

ENDS = ("client", "target")
LONGEST = 200_000
UNSENT = 3 * SESSION_WINDOW // 2


def other(end):
    return ENDS[1 - ENDS.index(end)]


class Direction:
    """What one end has said on one stream, and what the other has heard of it."""

    def __init__(self):
        self.written = bytearray()
        self.arrived = bytearray()
        self.unread = 0
        self.finished = False  # the writer called finish
        self.given_up = False  # the writer called reset, or the stream was refused
        self.stopped = False  # the reader called stop
        self.end_arrived = False
        self.reset_arrived = False
        self.told_to_stop = False

    @property
    def may_write(self):
        return not (self.finished or self.given_up or self.told_to_stop)


class Stream:
    def __init__(self, opener):
        self.opener = opener
        self.asked = False  # the acceptor knows of it
        self.accepted = False
        self.refused = False
        self.says = {end: Direction() for end in ENDS}

    def may_act(self, end):
        return end == self.opener or self.accepted


class TwoSessions(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.sessions = {end: Session(is_opener=end == "client", rng=SeededRng(end)) for end in ENDS}
        self.pipes = {end: [] for end in ENDS}  # packets under way to the other end
        self.streams = {}

    def pick(self, data, wanted):
        found = [(stream, end) for stream, state in self.streams.items() for end in ENDS if wanted(state, end)]
        return data.draw(st.sampled_from(found)) if found else (None, None)

    # Applications

    @rule(end=st.sampled_from(ENDS), port=st.integers(0, 0xFFFF), metadata=st.binary(max_size=1024))
    def open(self, end, port, metadata):
        if self.sessions[end].can_open:
            self.streams[self.sessions[end].open_stream(port, metadata)] = Stream(end)

    @rule(data=st.data(), accept=st.sampled_from([True, True, True, False]))
    def answer(self, data, accept):
        stream, end = self.pick(data, lambda s, end: s.asked and end != s.opener and not (s.accepted or s.refused))
        if stream is None:
            return
        state = self.streams[stream]
        if accept:
            state.accepted = True
            self.sessions[end].accept(stream)
        else:
            state.refused = True
            state.says[other(end)].unread = 0
            state.says[other(end)].stopped = True
            state.says[end].given_up = True
            self.sessions[end].refuse(stream, RefusalReason.BUSY)

    @rule(data=st.data(), size=st.integers(1, 50) | st.integers(1, LONGEST), byte=st.integers(0, 255))
    def write(self, data, size, byte):
        stream, end = self.pick(data, lambda s, end: s.may_act(end) and s.says[end].may_write)
        if stream is None or self.sessions[end].memory > UNSENT:
            return
        chunk = bytes([byte]) * size
        self.sessions[end].write(stream, chunk)
        self.streams[stream].says[end].written += chunk

    @rule(data=st.data())
    def finish(self, data):
        stream, end = self.pick(data, lambda s, end: s.may_act(end) and s.says[end].may_write)
        if stream is not None:
            self.sessions[end].finish(stream)
            self.streams[stream].says[end].finished = True

    @rule(data=st.data())
    def reset(self, data):
        stream, end = self.pick(data, lambda s, end: s.may_act(end) and not s.says[end].given_up)
        if stream is not None and not self.sessions[end].has_sent_all(stream):
            self.sessions[end].reset(stream, StreamCode.CANCELLED)
            self.streams[stream].says[end].given_up = True

    @rule(data=st.data())
    def stop(self, data):
        stream, end = self.pick(data, lambda s, end: s.may_act(end) and not s.says[other(end)].stopped)
        if stream is not None:
            self.sessions[end].stop(stream, StreamCode.CANCELLED)
            self.streams[stream].says[other(end)].stopped = True
            self.streams[stream].says[other(end)].unread = 0

    @rule(data=st.data(), share=st.sampled_from([1, 1, 2, 10]))
    def read(self, data, share):
        stream, end = self.pick(data, lambda s, end: s.may_act(end) and s.says[other(end)].unread)
        if stream is not None:
            says = self.streams[stream].says[other(end)]
            size = -(-says.unread // share)
            self.sessions[end].consumed(stream, size)
            says.unread -= size

    @rule(end=st.sampled_from(ENDS))
    def ping(self, end):
        self.sessions[end].ping()

    # The circuit

    @rule(end=st.sampled_from(ENDS), count=st.integers(1, 40), large=st.booleans())
    def send(self, end, count, large):
        for _ in range(count):
            packet = self.sessions[end].next_packet(large_room=large)
            for event in self.sessions[end].take_events():
                assert isinstance(event, events.RoomToWrite)
            if packet is None:
                break
            assert 5 <= len(packet) <= 1080 or len(packet) == 16_352
            assert large or len(packet) <= 1080
            self.pipes[end].append(packet)

    @rule(end=st.sampled_from(ENDS), count=st.integers(1, 40))
    def deliver(self, end, count):
        for packet in self.pipes[end][:count]:
            for event in self.sessions[other(end)].on_packet(packet):
                self.on_event(other(end), event)
        del self.pipes[end][:count]

    def on_event(self, end, event):
        if isinstance(event, (events.SessionOpened, events.PingAnswered)):
            return
        state = self.streams[event.stream]
        heard, said = state.says[other(end)], state.says[end]
        match event:
            case events.StreamOpened():
                assert end != state.opener
                state.asked = True
            case events.StreamAccepted():
                assert end == state.opener
                assert state.accepted
            case events.StreamRefused():
                assert end == state.opener
                assert state.refused
                said.given_up = True
            case events.DataArrived(_, chunk):
                assert not any([heard.stopped, heard.end_arrived, heard.reset_arrived])
                heard.arrived += chunk
                heard.unread += len(chunk)
                assert heard.written[len(heard.arrived) - len(chunk) : len(heard.arrived)] == chunk
            case events.StreamFinished():
                assert heard.finished
                assert heard.arrived == heard.written
                heard.end_arrived = True
            case events.StreamReset():
                assert heard.given_up
                heard.reset_arrived = True
                heard.unread = 0
            case events.StreamStopped():
                assert said.stopped
                said.told_to_stop = True
            case _:
                raise AssertionError(event)

    # What always holds

    @invariant()
    def memory_is_bounded_and_counted(self):
        for end in ENDS:
            session = self.sessions[end]
            unread = sum(state.says[other(end)].unread for state in self.streams.values())
            queued = sum(session.queued(stream) for stream, state in self.streams.items() if self.knows(state, end))
            assert unread <= SESSION_WINDOW
            assert session.memory == unread + queued

    @staticmethod
    def knows(state, end):
        return end == state.opener or state.asked

    def use_up(self, stream, state):
        """Accept the stream, read it, end it; whether there was anything to do."""
        acted = state.asked and not (state.accepted or state.refused)
        if acted:
            self.sessions[other(state.opener)].accept(stream)
            state.accepted = True
        for end in ENDS:
            if state.says[other(end)].unread:
                self.sessions[end].consumed(stream, state.says[other(end)].unread)
                state.says[other(end)].unread = 0
                acted = True
            if state.may_act(end) and state.says[end].may_write:
                self.sessions[end].finish(stream)
                state.says[end].finished = acted = True
        return acted

    def teardown(self):
        """Let everything through, read everything: then nothing may be missing, and nothing be left."""
        for _ in range(1000):
            acted = [self.use_up(stream, state) for stream, state in self.streams.items()]
            under_way = 0
            for end in ENDS:
                self.send(end, count=1000, large=True)
                under_way += len(self.pipes[end])
                self.deliver(end, count=1000)
            if not any(acted) and not under_way:
                break
        else:
            raise AssertionError("the sessions never come to rest")
        for state in self.streams.values():
            for said in state.says.values():
                if not (said.given_up or said.stopped or said.told_to_stop):
                    assert said.arrived == said.written
                    assert said.end_arrived
        assert [self.sessions[end].stream_count for end in ENDS] == [0, 0]
        assert [self.sessions[end].memory for end in ENDS] == [0, 0]


TwoSessions.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=100,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
test_two_sessions = TwoSessions.TestCase
