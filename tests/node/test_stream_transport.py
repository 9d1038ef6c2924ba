"""What asyncio promises of a transport, kept by the streams of a circuit."""

import asyncio
import datetime as dt
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from onionrelay.base.errors import CircuitLost, StreamReset
from onionrelay.base.limits import STREAM_SEND_BUFFER, STREAM_WINDOW
from onionrelay.wire.frames import RefusalReason
from tests.node.memory_circuit import Joined, in_virtual_time

MiB = 1024 * 1024


class Recorder(asyncio.Protocol):
    """Writes down every call. `keep_open`: the answer to eof_received."""

    def __init__(self, *, keep_open=True):
        self.calls = []
        self.data = bytearray()
        self.keep_open = keep_open
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data
        if self.calls[-1] != "data":
            self.calls.append("data")

    def eof_received(self):
        self.calls.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append(("lost", type(exc)))


class Both:
    """A Recorder at each end of one stream."""

    def __init__(self, pair, near, far):
        self.pair = pair
        self.near = near
        self.far = far

    @classmethod
    async def over(cls, pair, far):
        _, near = await pair.client.create_connection(Recorder, 80)
        return cls(pair, near, far)


def connected(test):
    """Give the test a stream with a Recorder at each end, and check the errors it leaves."""

    @in_virtual_time
    async def call():
        far = Recorder()

        async def serve(incoming):
            incoming.accept_protocol(far)

        async with Joined(serve) as pair:
            await test(await Both.over(pair, far))

    call.__name__ = test.__name__
    del call.__wrapped__
    return call


async def settle():
    await asyncio.sleep(5)


@connected
async def test_eof_each_way_then_close(both):
    both.near.transport.write(b"question")
    both.near.transport.write_eof()
    await settle()
    both.far.transport.write(b"answer")
    both.far.transport.write_eof()
    await settle()
    assert both.near.calls == ["made", "data", "eof"]
    assert both.far.calls == ["made", "data", "eof"]
    assert not both.near.transport.is_closing()
    both.near.transport.close()
    both.far.transport.close()
    await settle()
    assert both.near.calls[3:] == both.far.calls[3:] == [("lost", type(None))]
    assert both.pair.client.stream_count == both.pair.target.stream_count == 0


@connected
async def test_eof_closes_a_protocol_that_does_not_keep_the_stream_open(both):
    both.far.keep_open = None
    both.far.transport.write(b"last words")
    both.near.transport.write_eof()
    await settle()
    assert both.far.calls == ["made", "eof", ("lost", type(None))]
    assert both.near.data == b"last words"
    assert both.near.calls == ["made", "data", "eof"]


@connected
async def test_pausing_stops_data_and_eof_and_resuming_gives_both(both):
    both.far.transport.pause_reading()
    assert not both.far.transport.is_reading()
    both.near.transport.write(bytes(MiB))
    both.near.transport.write_eof()
    await settle()
    assert both.far.calls == ["made"]
    both.far.transport.resume_reading()
    assert both.far.transport.is_reading()
    assert both.far.calls == ["made"]
    await settle()
    assert both.far.calls == ["made", "data", "eof"]
    assert both.far.data == bytes(MiB)


@connected
async def test_eof_is_told_once(both):
    both.near.transport.write_eof()
    await settle()
    both.far.transport.pause_reading()
    both.far.transport.resume_reading()
    await settle()
    assert both.far.calls == ["made", "eof"]


@connected
async def test_what_arrives_between_resuming_and_the_loops_next_round_keeps_its_place(both):
    transport = both.far.transport
    transport.pause_reading()
    transport.on_data(b"first ")
    transport.resume_reading()
    transport.on_data(b"second")
    await settle()
    assert both.far.data == b"first second"


@connected
async def test_pausing_again_inside_data_received_is_obeyed_at_once(both):
    received = []

    def one_at_a_time(data):
        received.append(len(data))
        both.far.transport.pause_reading()

    both.far.data_received = one_at_a_time
    both.near.transport.write(bytes(300_000))
    for count in range(1, 4):
        await settle()
        assert len(received) == count
        both.far.transport.resume_reading()
    both.far.transport.pause_reading()
    await settle()
    assert len(received) == 3


@connected
async def test_the_window_opens_as_the_protocol_takes_the_data(both):
    both.far.transport.pause_reading()
    both.near.transport.write(bytes(3 * STREAM_WINDOW))
    await settle()
    assert both.near.transport.get_write_buffer_size() == 2 * STREAM_WINDOW
    assert both.near.calls == ["made", "pause"]
    both.far.transport.resume_reading()
    await settle()
    assert both.near.transport.get_write_buffer_size() == 0
    assert both.near.calls == ["made", "pause", "resume"]
    assert len(both.far.data) == 3 * STREAM_WINDOW


@connected
async def test_write_buffer_limits(both):
    transport = both.near.transport
    assert transport.get_write_buffer_limits() == (STREAM_SEND_BUFFER // 4, STREAM_SEND_BUFFER)
    transport.set_write_buffer_limits(high=1000)
    assert transport.get_write_buffer_limits() == (250, 1000)
    transport.set_write_buffer_limits(low=1000)
    assert transport.get_write_buffer_limits() == (1000, 4000)
    transport.set_write_buffer_limits(high=0)
    assert transport.get_write_buffer_limits() == (0, 0)
    with pytest.raises(ValueError, match="high"):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.write(b"x")
    assert both.near.calls == ["made", "pause"]
    await settle()
    assert both.near.calls == ["made", "pause", "resume"]
    transport.set_write_buffer_limits(high=100 * MiB)
    transport.write(bytes(2 * STREAM_SEND_BUFFER))
    assert both.near.calls[-1] == "pause", "the session's own bound holds all the same"


@connected
async def test_what_may_be_written(both):
    transport = both.near.transport
    buffer = bytearray(b"c" * 100_000)
    transport.write(b"a")
    transport.write(memoryview(b"b"))
    transport.write(buffer)
    transport.write(b"")
    transport.writelines([b"d", bytearray(b"e")])
    buffer[:] = b"!" * 100_000
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            transport.write(wrong)
    await settle()
    assert both.far.data == b"ab" + b"c" * 100_000 + b"de"
    assert transport.can_write_eof()
    transport.write_eof()
    transport.write_eof()
    with pytest.raises(RuntimeError):
        transport.write(b"x")


@connected
async def test_a_closed_transport_ignores_calls(both):
    transport = both.near.transport
    transport.close()
    transport.close()
    transport.write(b"ignored")
    transport.write_eof()
    transport.resume_reading()
    await settle()
    transport.abort()
    transport.write(b"ignored")
    await settle()
    assert both.near.calls == ["made", ("lost", type(None))]
    assert both.far.data == b""


@connected
async def test_connection_lost_comes_once_whatever_follows_whatever(both):
    both.near.transport.write(bytes(10 * MiB))
    both.near.transport.close()
    both.near.transport.abort()
    both.pair.lose()
    both.near.transport.close()
    await settle()
    assert [call for call in both.near.calls if call[0] == "lost"] == [("lost", type(None))]
    assert [call for call in both.far.calls if call[0] == "lost"] == [("lost", CircuitLost)]


@connected
async def test_close_waits_for_the_queue_and_then_reports_the_loss_of_the_circuit(both):
    both.far.transport.pause_reading()
    both.near.transport.write(bytes(10 * MiB))
    both.near.transport.close()
    await settle()
    assert both.near.calls == ["made", "pause"]
    both.pair.lose()
    await settle()
    assert both.near.calls[-1] == ("lost", CircuitLost)


@connected
async def test_close_with_all_sent_is_no_error_even_if_the_circuit_dies(both):
    both.near.transport.write(b"all")
    await settle()
    both.near.transport.close()
    both.pair.lose()
    await settle()
    assert both.near.calls[-1] in (("lost", type(None)), ("lost", CircuitLost))
    assert len(both.near.calls) == 2


@connected
async def test_the_peers_close_does_not_take_unread_data_away(both):
    both.far.transport.pause_reading()
    both.near.transport.write(bytes(MiB))
    both.near.transport.close()
    await settle()
    assert both.near.calls == ["made", "pause", "resume", ("lost", type(None))]
    assert both.far.calls == ["made"]
    both.far.transport.resume_reading()
    await settle()
    assert len(both.far.data) == MiB
    assert both.far.calls == ["made", "data", "eof"]
    both.far.transport.write(b"to nobody")
    await settle()
    assert both.far.calls[-1] == ("lost", StreamReset)


@connected
async def test_the_peers_close_ends_one_who_has_unsent_data(both):
    both.far.transport.write(bytes(20 * MiB))
    both.near.transport.close()
    await settle()
    assert both.far.calls[-1] == ("lost", StreamReset)


@connected
async def test_the_peers_close_while_closing_with_nothing_left(both):
    both.far.transport.close()
    both.near.transport.close()
    await settle()
    assert both.near.calls == both.far.calls == ["made", ("lost", type(None))]


@connected
async def test_the_peers_close_while_only_the_end_waits_to_be_sent(both):
    both.pair.target_end.window = 0
    both.far.transport.close()
    await settle()
    assert both.far.calls == ["made"]
    both.near.transport.close()
    await settle()
    assert both.far.calls == ["made", ("lost", type(None))]


@connected
async def test_abort_resets(both):
    both.near.transport.write(b"thrown away")
    both.near.transport.abort()
    assert both.near.transport.is_closing()
    await settle()
    assert both.near.calls == ["made", ("lost", type(None))]
    assert both.far.calls == ["made", ("lost", StreamReset)]


@connected
async def test_a_protocol_that_raises_loses_its_stream_and_is_reported(both):
    def broken(data):
        raise ZeroDivisionError

    both.far.data_received = broken
    both.near.transport.write(b"x")
    await settle()
    assert both.far.calls == ["made", ("lost", ZeroDivisionError)]
    assert both.near.calls == ["made", ("lost", StreamReset)]
    (report,) = both.pair.errors
    assert isinstance(report["exception"], ZeroDivisionError)
    both.pair.errors.clear()
    assert both.pair.client.is_open


@connected
async def test_another_protocol_may_take_over(both):
    successor = Recorder()
    successor.calls.append("made")
    assert both.far.transport.get_protocol() is both.far
    both.far.transport.set_protocol(successor)
    both.near.transport.write(b"for the successor")
    await settle()
    assert successor.data == b"for the successor"
    assert both.far.data == b""


@connected
async def test_what_it_says_about_itself(both):
    transport = both.near.transport
    assert repr(transport) == "<StreamTransport stream 1 open>"
    assert transport.get_extra_info("stream") == 1
    assert transport.get_extra_info("circuit") == "the circuit"
    assert transport.get_extra_info("sockname", "nothing") == "nothing"
    transport.write(bytes(10 * MiB))
    transport.close()
    assert repr(transport) == "<StreamTransport stream 1 closing>"
    transport.abort()
    assert repr(transport) == "<StreamTransport stream 1 over>"


@in_virtual_time
async def test_a_stream_without_protocol_has_none():
    async def serve(incoming):
        with pytest.raises(RuntimeError):
            incoming.transport.get_protocol()
        incoming.refuse(RefusalReason.BUSY)

    async with Joined(serve) as pair:
        with pytest.raises(ConnectionRefusedError):
            await pair.client.open_stream(80)


@connected
async def test_a_buffered_protocol_gets_its_buffers_filled(both):
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(1000)
            self.data = bytearray()
            self.ended = False

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, nbytes):
            self.data += self.buffer[:nbytes]

        def eof_received(self):
            self.ended = True

    buffered = Buffered()
    both.far.transport.set_protocol(buffered)
    data = bytes(range(256)) * 300
    both.near.transport.write(data)
    both.near.transport.write_eof()
    await settle()
    assert buffered.data == data
    assert buffered.ended


def tls_contexts():
    """A server's context with a certificate of its own, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "service.test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("service.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate.public_bytes(serialization.Encoding.PEM)


def test_tls_over_a_stream(tmp_path):
    key, certificate = tls_contexts()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "service.pem").write_bytes(private + certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "service.pem")
    client = ssl.create_default_context(cadata=certificate.decode())

    async def serve(incoming):
        protocol = Recorder()
        transport = incoming.accept_protocol(protocol)
        tls = await asyncio.get_running_loop().start_tls(transport, protocol, server, server_side=True)
        while not protocol.data.endswith(b"\n"):
            await asyncio.sleep(1)
        tls.write(protocol.data.upper())
        tls.close()

    async def body():
        async with Joined(serve) as pair:
            stream = await pair.client.open_stream(443)
            await stream.writer.start_tls(client, server_hostname="service.test")
            stream.write(b"hello\n")
            assert await stream.read() == b"HELLO\n"
            assert stream.writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert stream.circuit == "the circuit"
            await stream.aclose()

    in_virtual_time(body)()
