"""The link handshakes of specs/vectors/handshake.json."""

import json

import pytest

from onionrelay.base import errors
from onionrelay.base.ids import RelayId
from onionrelay.core.link.handshake import ClientHandshake, LinkIdentity, ServerHandshake
from onionrelay.core.link.identity import make_signing_cert
from onionrelay.crypto.signing import SigningSecret
from onionrelay.wire.address import Address
from onionrelay.wire.cell import Cmd
from onionrelay.wire.control import Assembler, control_limit
from onionrelay.wire.link import Auth, HelloClient, HelloRefused, HelloServer
from tests.vectors.paths import VECTORS

FILE = json.loads((VECTORS / "handshake.json").read_text())
BASES = {case["name"]: case for case in FILE["accept"]}


class Given:
    """An Rng that has one draw."""

    def __init__(self, nonce: str) -> None:
        self.nonce = bytes.fromhex(nonce)

    def token(self, size):
        assert size == len(self.nonce)
        return self.nonce


def identity(given):
    if "relay_seed" not in given:
        return None
    relay, signing = (SigningSecret(bytes.fromhex(given[name])) for name in ("relay_seed", "signing_seed"))
    cert = make_signing_cert(relay, signing.public, given["cert_not_after"])
    return LinkIdentity(RelayId.decode(bytes.fromhex(given["relay_id"])), signing, cert)


def settings(case, given):
    return {
        "net_id": bytes.fromhex(case["net_id"]),
        "leaf_digest": bytes.fromhex(case["leaf_digest"]),
        "identity": identity(given),
        "rng": Given(given["nonce"]),
        "features": given["features"],
        "versions": tuple(given["versions"]),
    }


def client_of(case):
    expected = RelayId(bytes.fromhex(case.get("expected", case["server"]["relay_id"])))
    return ClientHandshake(expected=expected, **settings(case, case["client"]))


def server_of(case):
    return ServerHandshake(observed=Address.parse(case["observed"]), **settings(case, case["server"]))


def body_of(cells):
    """The body of the one message in these cells, in hex."""
    if not cells:
        return ""
    assembler = Assembler(control_limit(cells[4]))
    bodies = [assembler.feed(cells[start + 8 : start + 1112]) for start in range(0, len(cells), 1112)]
    return bodies[-1].body.hex()


def cases(kind):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in FILE[kind]])


@cases("accept")
def test_both_ends_write_these_bytes(case):
    c, s, now = client_of(case), server_of(case), case["unix_now"]
    hello_c, hello_s, auth = (bytes.fromhex(case[name]) for name in ("hello_c", "hello_s", "auth"))
    assert body_of(c.start()) == case["hello_c"]
    assert body_of(s.on_message(Cmd.HELLO, HelloClient.TYPE, hello_c, now)) == case["hello_s"]
    assert body_of(c.on_message(Cmd.HELLO, HelloServer.TYPE, hello_s, now)) == case["auth"]
    if auth:
        assert s.on_message(Cmd.AUTH, Auth.TYPE, auth, now) == b""
    assert c.peer.transcript.hex() == s.peer.transcript.hex() == case["transcript"]
    assert c.peer.relay_id.raw.hex() == case["server"]["relay_id"]
    assert str(c.peer.observed) == case["observed"]
    assert bool(s.peer.relay_id) == bool(auth)


@cases("reject")
def test_refused(case):
    whole = BASES[case["of"]] | case
    machine = client_of(whole) if case["at"] == "client" else server_of(whole)
    now = whole["unix_now"]
    with pytest.raises(errors.OnionRelayError) as refusal:
        if case["at"] == "client":
            machine.start()
            machine.on_message(Cmd.HELLO, HelloServer.TYPE, bytes.fromhex(whole["hello_s"]), now)
        else:
            machine.on_message(Cmd.HELLO, HelloClient.TYPE, bytes.fromhex(whole["hello_c"]), now)
            machine.on_message(Cmd.AUTH, Auth.TYPE, bytes.fromhex(whole["auth"]), now)
    assert type(refusal.value).__name__ == case["error"]
    if case.get("answer"):
        assert refusal.value.answer[4] == Cmd.HELLO
        assert int.from_bytes(refusal.value.answer[8:10]) == HelloRefused.TYPE
        assert body_of(refusal.value.answer) == case["answer"]
    else:
        assert getattr(refusal.value, "answer", b"") == b""
