import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from onionrelay.base.errors import BadSignature, LinkRefused, OnionRelayError, ProtocolViolation
from onionrelay.base.ids import RelayId
from onionrelay.base.limits import SMALL_CELL
from onionrelay.core.link.handshake import ClientHandshake, LinkIdentity, ServerHandshake, State
from onionrelay.core.link.identity import check_signing_cert, make_signing_cert
from onionrelay.crypto.signing import SigningSecret, verify
from onionrelay.wire.address import Address
from onionrelay.wire.cell import HEADER, Cmd, check_header
from onionrelay.wire.control import Assembler, control_limit, fragment
from onionrelay.wire.link import (
    Auth,
    Feature,
    HelloClient,
    HelloRefusal,
    HelloRefused,
    HelloServer,
    LinkRole,
    PaddingPolicy,
    SigningCert,
)
from tests.seeded import SeededRng

NOW = 1_800_000_000
NET = bytes(range(8))
OTHER_NET = bytes(8)
LEAF = hashlib.sha256(b"the certificate of the server").digest()
OTHER_LEAF = hashlib.sha256(b"the certificate of somebody between").digest()
CLIENT_ADDRESS = Address("203.0.113.9", 50_000)
CLIENT_FEATURES = int(Feature.CIRCUITS | Feature.DIR) | 1 << 60
SERVER_FEATURES = int(Feature.CIRCUITS | Feature.ATTACH)


def identity(name: str, not_after: int = NOW + 3600) -> LinkIdentity:
    rng = SeededRng(name)
    relay, signing = SigningSecret.generate(rng), SigningSecret.generate(rng)
    return LinkIdentity(RelayId(relay.public), signing, make_signing_cert(relay, signing.public, not_after))


SERVER, CLIENT, MALLORY = identity("server"), identity("client"), identity("mallory")


def client(proves: LinkIdentity | None = None, expected: RelayId = SERVER.relay_id, **changes) -> ClientHandshake:
    settings = {"net_id": NET, "leaf_digest": LEAF, "rng": SeededRng("c"), "features": CLIENT_FEATURES} | changes
    return ClientHandshake(expected=expected, identity=proves, **settings)


def server(who: LinkIdentity = SERVER, **changes) -> ServerHandshake:
    settings = {"net_id": NET, "leaf_digest": LEAF, "rng": SeededRng("s"), "features": SERVER_FEATURES} | changes
    return ServerHandshake(identity=who, observed=CLIENT_ADDRESS, **settings)


class End:
    """A machine behind the cells of its link."""

    def __init__(self, machine: ClientHandshake | ServerHandshake) -> None:
        self.machine = machine
        self.assemblers = {cmd: Assembler(control_limit(cmd)) for cmd in (Cmd.HELLO, Cmd.AUTH)}

    def take(self, cells: bytes, now: int = NOW) -> bytes:
        answer = b""
        for start in range(0, len(cells), SMALL_CELL):
            header, body = cells[start : start + HEADER.size], cells[start + HEADER.size : start + SMALL_CELL]
            circ_id, cmd, gen, zero = HEADER.unpack(header)
            check_header(circ_id, cmd, gen, zero)
            if cmd not in self.assemblers:
                raise ProtocolViolation("only HELLO and AUTH before the handshake is done")
            if message := self.assemblers[cmd].feed(body):
                answer += self.machine.on_message(cmd, message.type, message.body, now)
        return answer


Meddle = Callable[[int, bytes], bytes]


def run(c: ClientHandshake, s: ServerHandshake, meddle: Meddle = lambda _, cells: cells) -> list[bytes]:
    """The three flights between the two, each through `meddle`; returns them as they were sent."""
    client_end, server_end = End(c), End(s)
    flights = [c.start()]
    flights.append(server_end.take(meddle(0, flights[0])))
    flights.append(client_end.take(meddle(1, flights[1])))
    flights.append(server_end.take(meddle(2, flights[2])))
    return flights


def body_of(cells: bytes) -> bytes:
    assembler = Assembler(control_limit(cells[4]))
    messages = [assembler.feed(cells[i + 8 : i + SMALL_CELL]) for i in range(0, len(cells), SMALL_CELL)]
    return messages[-1].body


# What a handshake establishes


def test_anonymous_client():
    c, s = client(), server()
    hello_c, hello_s, auth, nothing = run(c, s)
    assert (auth, nothing) == (b"", b"")
    assert (c.state, s.state) == (State.DONE, State.DONE)
    assert c.peer.relay_id == SERVER.relay_id
    assert c.peer.signing_key == SERVER.signing_cert.signing_key
    assert (c.peer.features, s.peer.features) == (SERVER_FEATURES, CLIENT_FEATURES)
    assert (c.peer.observed, s.peer.observed) == (CLIENT_ADDRESS, None)
    assert c.peer.window == s.peer.window == NOW // 600
    assert (s.peer.relay_id, s.peer.signing_key) == (None, None)
    expected = hashlib.sha256(body_of(hello_c) + body_of(hello_s) + LEAF).digest()
    assert c.peer.transcript == s.peer.transcript == expected


def test_relay_client():
    c, s = client(CLIENT), server()
    flights = run(c, s)
    assert flights[3] == b""
    assert (s.peer.relay_id, s.peer.signing_key) == (CLIENT.relay_id, CLIENT.signing_cert.signing_key)
    assert c.peer.transcript == s.peer.transcript
    auth = Auth.decode(body_of(flights[2]))
    verify(CLIENT.signing_cert.signing_key, "link-client", s.peer.transcript, auth.signature)


def test_what_the_server_signs():
    flights = run(client(), server())
    hello_c, hello_s = body_of(flights[0]), body_of(flights[1])
    signed = hashlib.sha256(hello_c + hello_s[:-64]).digest() + LEAF
    verify(SERVER.signing_cert.signing_key, "link-server", signed, hello_s[-64:])


def test_the_client_says_nothing_of_itself():
    hello = HelloClient.decode(body_of(client(rng=SeededRng("x")).start()))
    nonce = SeededRng("x").token(32)
    assert hello == HelloClient(NET, (1,), CLIENT_FEATURES, nonce, LinkRole.CLIENT, PaddingPolicy.OFF)


def test_a_relay_is_no_peer_before_its_auth():
    c, s = client(CLIENT), server()
    End(s).take(c.start())
    assert s.peer is None
    assert s.state is State.AWAITING_AUTH


def test_the_server_speaks_second():
    assert server().start() == b""


def test_transcripts_differ_between_links():
    seen = set()
    for number in range(3):
        c, s = client(rng=SeededRng("same")), server(rng=SeededRng(number))
        run(c, s)
        seen.add(c.peer.transcript)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("offered", "known", "chosen"),
    [((1,), (1,), 1), ((1, 2, 3), (1, 2), 2), ((2, 9), (1, 2, 9, 10), 9), ((1, 65_535), (1, 65_535), 65_535)],
)
def test_highest_common_version(offered, known, chosen):
    flights = run(client(versions=offered), server(versions=known))
    assert HelloServer.decode(body_of(flights[1])).version == chosen


# Refusals


def refused(c: ClientHandshake, s: ServerHandshake) -> tuple[LinkRefused, LinkRefused]:
    with pytest.raises(LinkRefused) as at_server:
        End(s).take(c.start())
    with pytest.raises(LinkRefused) as at_client:
        End(c).take(at_server.value.answer)
    assert c.peer is None
    assert s.peer is None
    assert (c.state, s.state) == (State.FAILED, State.FAILED)
    return at_server.value, at_client.value


def test_wrong_network():
    at_server, at_client = refused(client(net_id=OTHER_NET), server())
    assert HelloRefused.decode(body_of(at_server.answer)).reason is HelloRefusal.WRONG_NETWORK
    assert "different networks" in str(at_client)


def test_a_refusal_does_not_say_who_refuses():
    at_server, _ = refused(client(net_id=OTHER_NET), server())
    assert body_of(at_server.answer) == bytes([HelloRefusal.WRONG_NETWORK])


def test_no_common_version():
    at_server, at_client = refused(client(versions=(2, 3)), server())
    assert HelloRefused.decode(body_of(at_server.answer)).reason is HelloRefusal.NO_VERSION
    assert "version" in str(at_client)


@pytest.mark.parametrize("reason", [HelloRefusal.BUSY, HelloRefusal.NOT_A_RELAY])
def test_refusing_everybody(reason):
    at_server, at_client = refused(client(), server(refusing=reason))
    assert HelloRefused.decode(body_of(at_server.answer)).reason is reason
    assert at_client.reason == at_server.reason


def test_another_network_comes_before_any_other_refusal():
    at_server, _ = refused(client(net_id=OTHER_NET), server(refusing=HelloRefusal.BUSY))
    assert HelloRefused.decode(body_of(at_server.answer)).reason is HelloRefusal.WRONG_NETWORK


def test_another_relay_answers():
    with pytest.raises(LinkRefused, match="another relay"):
        run(client(expected=MALLORY.relay_id), server())


@pytest.mark.parametrize(("not_after", "held"), [(NOW + 1, True), (NOW, False), (0, False)])
def test_the_end_of_certificates(not_after, held):
    for c, s in ((client(), server(identity("server", not_after))), (client(identity("client", not_after)), server())):
        if held:
            run(c, s)
            assert c.peer
            assert s.peer
        else:
            with pytest.raises(LinkRefused, match="certificate ended") as refusal:
                run(c, s)
            assert refusal.value.answer == b""
            assert c.peer is None or s.peer is None


# Impostors


def answering(**changes) -> Meddle:
    """Re-signs the server's HELLO with other fields, as an impostor who holds `signer` would."""

    def meddle(flight: int, cells: bytes) -> bytes:
        if flight == 0:
            meddle.hello_c = body_of(cells)
        if flight != 1:
            return cells
        signer = changes.get("signer", MALLORY.signing_secret)
        fields = {name: value for name, value in changes.items() if name not in {"signer", "thing", "leaf"}}
        old = HelloServer.decode(body_of(cells))
        values = {name: getattr(old, name) for name in old.__struct_fields__} | fields
        unsigned = HelloServer(**values).encode()[:-64]
        proof = hashlib.sha256(meddle.hello_c + unsigned).digest() + changes.get("leaf", LEAF)
        return fragment(Cmd.HELLO, 2, unsigned + signer.sign(changes.get("thing", "link-server"), proof))

    return meddle


FORGED_CERT = SigningCert(MALLORY.signing_cert.signing_key, NOW + 3600, bytes(64))
SELF_MADE = make_signing_cert(MALLORY.signing_secret, MALLORY.signing_secret.public, NOW + 3600)
RELAY_SECRET = SigningSecret.generate(SeededRng("server"))


@pytest.mark.parametrize(
    "forgery",
    {
        "somebody else's certificate": answering(signing_cert=MALLORY.signing_cert),
        "a certificate signed by itself": answering(signing_cert=SELF_MADE),
        "a certificate without signature": answering(signing_cert=FORGED_CERT),
        "the right certificate without its key": answering(signer=MALLORY.signing_secret),
        "signed by the relay id itself": answering(signer=RELAY_SECRET),
        "a signature of another thing": answering(signer=SERVER.signing_secret, thing="link-client"),
        "a proof for another leaf": answering(signer=SERVER.signing_secret, leaf=OTHER_LEAF),
    }.items(),
    ids=lambda item: item[0],
)
def test_an_impostor_of_the_server(forgery):
    c = client()
    with pytest.raises(BadSignature):
        run(c, server(), forgery[1])
    assert c.peer is None


def test_the_meddler_itself_works():
    c = client()
    run(c, server(), answering(signer=SERVER.signing_secret))
    assert c.peer


def test_a_version_that_was_not_offered():
    with pytest.raises(ProtocolViolation, match="version 2"):
        run(client(), server(), answering(signer=SERVER.signing_secret, version=2))


def test_an_answer_for_another_network():
    with pytest.raises(LinkRefused, match="networks"):
        run(client(), server(), answering(signer=SERVER.signing_secret, net_id=OTHER_NET))


def test_an_old_answer():
    old = run(client(rng=SeededRng("old")), server())[1]
    with pytest.raises(BadSignature):
        run(client(rng=SeededRng("new")), server(), lambda flight, cells: old if flight == 1 else cells)


def authenticating(relay_id: RelayId, cert: SigningCert, signer: SigningSecret, thing: str = "link-client") -> Meddle:
    def meddle(flight: int, cells: bytes) -> bytes:
        if flight < 2:
            meddle.seen = [*getattr(meddle, "seen", []), body_of(cells)]
            return cells
        transcript = hashlib.sha256(b"".join(meddle.seen) + LEAF).digest()
        return fragment(Cmd.AUTH, Auth.TYPE, Auth(relay_id, cert, signer.sign(thing, transcript)).encode())

    return meddle


@pytest.mark.parametrize(
    "forgery",
    {
        "somebody else's id": authenticating(CLIENT.relay_id, MALLORY.signing_cert, MALLORY.signing_secret),
        "somebody else's certificate": authenticating(MALLORY.relay_id, CLIENT.signing_cert, MALLORY.signing_secret),
        "a certificate without its key": authenticating(CLIENT.relay_id, CLIENT.signing_cert, MALLORY.signing_secret),
        "a server's word": authenticating(CLIENT.relay_id, CLIENT.signing_cert, CLIENT.signing_secret, "link-server"),
    }.items(),
    ids=lambda item: item[0],
)
def test_an_impostor_of_a_relay(forgery):
    s = server()
    with pytest.raises(BadSignature):
        run(client(MALLORY), s, forgery[1])
    assert s.peer is None


def test_an_auth_of_another_link():
    old = run(client(CLIENT, rng=SeededRng("old")), server(rng=SeededRng("old")))[2]
    s = server()
    with pytest.raises(BadSignature):
        run(client(CLIENT), s, lambda flight, cells: old if flight == 2 else cells)
    assert s.peer is None


@pytest.mark.parametrize("proves", [None, CLIENT])
def test_somebody_between_with_two_tls_legs(proves):
    """He forwards every byte, but the client sees his certificate, for he has not the server's TLS key."""
    c, s = client(proves, leaf_digest=OTHER_LEAF), server(leaf_digest=LEAF)
    with pytest.raises(BadSignature):
        run(c, s)
    assert c.peer is None


def test_a_relay_between_cannot_pass_on_an_auth():
    """Even a client that would skip its own check proves itself to the leaf it saw, and to no other."""
    at_mallory = ServerHandshake(
        net_id=NET,
        identity=MALLORY,
        leaf_digest=OTHER_LEAF,
        observed=CLIENT_ADDRESS,
        rng=SeededRng("m"),
        features=0,
    )
    honest = client(CLIENT, expected=MALLORY.relay_id, leaf_digest=OTHER_LEAF)
    auth = run(honest, at_mallory)[2]
    s = server()
    with pytest.raises(BadSignature):
        run(client(CLIENT), s, lambda flight, cells: auth if flight == 2 else cells)


@pytest.mark.parametrize("flight", [0, 1, 2])
@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_byte_flipped_once(flight, mask):
    """Whichever byte of the handshake changes on its way: never do both ends finish with different views."""
    clean = run(client(CLIENT), server())
    finished = 0
    for at in range(len(clean[flight])):

        def flip(index: int, cells: bytes, at: int = at) -> bytes:
            if index != flight:
                return cells
            return cells[:at] + bytes([cells[at] ^ mask]) + cells[at + 1 :]

        c, s = client(CLIENT), server()
        with pytest.raises(OnionRelayError):
            run(c, s, flip)
        finished += bool(c.peer and s.peer)
    assert finished == 0


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_byte_of_an_anonymous_handshake_flipped_once(mask):
    """Here the server is done after HELLO_C; it is the client that then does not finish."""
    for at in range(SMALL_CELL):
        for flight in (0, 1):

            def flip(index: int, cells: bytes, at: int = at, flight: int = flight) -> bytes:
                return cells[:at] + bytes([cells[at] ^ mask]) + cells[at + 1 :] if index == flight else cells

            c = client()
            with pytest.raises(OnionRelayError):
                run(c, server(), flip)
            assert c.peer is None


@pytest.mark.parametrize("cut", [1, 7, 32, 64, 65, 100])
@pytest.mark.parametrize("flight", [0, 1, 2])
def test_shortened_messages(flight, cut):
    def shorten(index: int, cells: bytes) -> bytes:
        return fragment(cells[4], int.from_bytes(cells[8:10]), body_of(cells)[:-cut]) if index == flight else cells

    c, s = client(CLIENT), server()
    with pytest.raises(ProtocolViolation):
        run(c, s, shorten)
    assert not (c.peer and s.peer)


def test_a_message_with_a_critical_extension():
    body = body_of(client().start()) + b"\x80\x01\x00\x00"
    with pytest.raises(ProtocolViolation):
        server().on_message(Cmd.HELLO, HelloClient.TYPE, body, NOW)


def test_an_extension_nobody_knows_is_covered_by_the_signature():
    """A client of a later version extends its HELLO: it is ignored, and signed as it was sent."""
    extended = body_of(client().start()) + b"\x00\x07\x00\x02ok"
    s = server()
    answer = s.on_message(Cmd.HELLO, HelloClient.TYPE, extended, NOW)
    proof = hashlib.sha256(extended + body_of(answer)[:-64]).digest() + LEAF
    verify(SERVER.signing_cert.signing_key, "link-server", proof, body_of(answer)[-64:])
    assert s.peer


# Every message in every state


@dataclass(frozen=True)
class Message:
    cmd: int
    type: int
    body: bytes


def messages() -> dict[str, Message]:
    """One of each kind, well-formed, and right for the machines of `in_state` where it is awaited."""
    flights = run(client(CLIENT), server())
    return {
        "HELLO_C": Message(Cmd.HELLO, 1, body_of(flights[0])),
        "HELLO_S": Message(Cmd.HELLO, 2, body_of(flights[1])),
        "HELLO_REFUSED": Message(Cmd.HELLO, 3, HelloRefused(HelloRefusal.BUSY).encode()),
        "AUTH": Message(Cmd.AUTH, 1, body_of(flights[2])),
        "unknown HELLO": Message(Cmd.HELLO, 4, b""),
        "unknown AUTH": Message(Cmd.AUTH, 2, b""),
        "other command": Message(Cmd.DIR, 1, b""),
    }


def in_state(side: str, state: State) -> ClientHandshake | ServerHandshake:
    c, s = client(CLIENT), server()
    if state is State.DONE:
        run(c, s)
    elif state is State.AWAITING_AUTH:
        End(s).take(c.start())
    elif state is not State.NEW and side == "client":
        c.start()
    machine = c if side == "client" else s
    if state is State.FAILED:
        with pytest.raises(ProtocolViolation):
            machine.on_message(Cmd.DIR, 1, b"", NOW)
    assert machine.state is state
    return machine


STATES = {
    "client": (State.NEW, State.AWAITING_HELLO, State.DONE, State.FAILED),
    "server": (State.AWAITING_HELLO, State.AWAITING_AUTH, State.DONE, State.FAILED),
}
WANTED = {
    ("client", State.AWAITING_HELLO, "HELLO_S"): State.DONE,
    ("client", State.AWAITING_HELLO, "HELLO_REFUSED"): LinkRefused,
    ("server", State.AWAITING_HELLO, "HELLO_C"): State.AWAITING_AUTH,
    ("server", State.AWAITING_AUTH, "AUTH"): State.DONE,
}


@pytest.mark.parametrize("name", list(messages()))
@pytest.mark.parametrize(("side", "state"), [(side, state) for side, states in STATES.items() for state in states])
def test_every_message_in_every_state(side, state, name):
    machine, message = in_state(side, state), messages()[name]
    wanted = WANTED.get((side, state, name), ProtocolViolation)
    if isinstance(wanted, State):
        machine.on_message(message.cmd, message.type, message.body, NOW)
        assert machine.state is wanted
        return
    with pytest.raises(wanted):
        machine.on_message(message.cmd, message.type, message.body, NOW)
    assert machine.state is State.FAILED


# Certificates and secrets


def test_signing_certificates():
    relay, signing = RELAY_SECRET, SigningSecret.generate(SeededRng("day"))
    cert = make_signing_cert(relay, signing.public, NOW)
    check_signing_cert(RelayId(relay.public), cert)
    assert SigningCert.decode(cert.encode()) == cert
    verify(RelayId(relay.public), "signing-cert", signing.public + NOW.to_bytes(4), cert.signature)
    with pytest.raises(BadSignature):
        check_signing_cert(MALLORY.relay_id, cert)
    with pytest.raises(BadSignature):
        check_signing_cert(RelayId(relay.public), SigningCert(cert.signing_key, NOW + 1, cert.signature))


def test_an_identity_does_not_show_its_secret():
    text = repr(SERVER)
    assert "SigningSecret" not in text
    assert SERVER.signing_secret.seed.hex() not in text
