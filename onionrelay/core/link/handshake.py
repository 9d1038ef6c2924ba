"""The link handshake: who is at the other end, of which network, and with what abilities. specs/10-tls-links.md.

Both machines take whole control messages of HELLO and AUTH and return cells to send. `peer` is None until the handshake
is complete, and nothing else may be handled on the link before that. A message that is wrong, or comes at a wrong time,
raises and ends the handshake for good: the link is then closed, after sending the `answer` of a LinkRefused.

Not in this module: TLS, time limits, and how many links are admitted.
"""

import hashlib
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from onionrelay.base.errors import LinkRefused, ProtocolViolation
from onionrelay.base.ids import RelayId, SigningKey
from onionrelay.base.limits import PROTOCOL_VERSION, TIME_WINDOW
from onionrelay.base.seams import Rng
from onionrelay.core.link.identity import check_signing_cert
from onionrelay.crypto.signing import SIGNATURE_SIZE, SigningSecret, verify
from onionrelay.wire.address import Address
from onionrelay.wire.cell import Cmd
from onionrelay.wire.control import fragment
from onionrelay.wire.link import (
    NONCE,
    Auth,
    HelloClient,
    HelloRefusal,
    HelloRefused,
    HelloServer,
    LinkRole,
    PaddingPolicy,
    SigningCert,
)

VERSIONS = (PROTOCOL_VERSION,)
NO_SIGNATURE = bytes(SIGNATURE_SIZE)

_REFUSALS = {
    HelloRefusal.WRONG_NETWORK: "the two ends belong to different networks",
    HelloRefusal.NO_VERSION: "the two ends have no protocol version in common",
    HelloRefusal.BUSY: "the relay is busy",
    HelloRefusal.NOT_A_RELAY: "the node takes no links",
}


@dataclass(frozen=True, slots=True)
class LinkIdentity:
    """What a relay proves its links with. `signing_cert` certifies `signing_secret`'s key and names `relay_id`."""

    relay_id: RelayId
    signing_secret: SigningSecret = field(repr=False)
    signing_cert: SigningCert


@dataclass(frozen=True, slots=True)
class Peer:
    """What the handshake established about the other end.

    `relay_id` and `signing_key` are None for an anonymous client. `features` are the peer's own bits, unknown ones
    included. `observed` is this end's address as the server sees it, and None at the server. `window` is the server's
    unix time // 600. `transcript` (32 bytes) is the same at both ends and at no other link.
    """

    relay_id: RelayId | None
    signing_key: SigningKey | None
    features: int
    observed: Address | None
    window: int
    transcript: bytes


class State(Enum):
    """Where a handshake stands; a machine passes through its states in this order and never goes back."""

    NEW = auto()  # a client that has not been started
    AWAITING_HELLO = auto()
    AWAITING_AUTH = auto()  # a server whose client says that it is a relay
    DONE = auto()
    FAILED = auto()


class ClientHandshake:
    """The dialling end. `leaf_digest`: SHA-256 of the certificate the server showed in TLS.

    With an `identity` it proves that it is that relay; with None it stays anonymous. `expected` is the relay that was
    dialled: any other one is refused.
    """

    def __init__(
        self,
        *,
        net_id: bytes,
        expected: RelayId,
        leaf_digest: bytes,
        identity: LinkIdentity | None,
        rng: Rng,
        features: int,
        versions: tuple[int, ...] = VERSIONS,
    ) -> None:
        self.peer: Peer | None = None
        self.state = State.NEW
        self._expected = expected
        self._leaf_digest = leaf_digest
        self._identity = identity
        self._hello = HelloClient(
            net_id=net_id,
            versions=versions,
            features=features,
            nonce=rng.token(NONCE),
            want_role=LinkRole.RELAY if identity else LinkRole.CLIENT,
            padding_policy=PaddingPolicy.OFF,
        )
        self._hello_body = self._hello.encode()

    def start(self) -> bytes:
        """The first cells to send. Once, before any message is handled."""
        self.state = State.AWAITING_HELLO
        return fragment(Cmd.HELLO, HelloClient.TYPE, self._hello_body)

    def on_message(self, cmd: int, type: int, body: bytes, unix_now: int) -> bytes:  # noqa: A002 - the word of specs/
        """Handles one control message of the server; returns cells to send.

        Raises LinkRefused when either end does not want the other, else ProtocolViolation.
        """
        state, self.state = self.state, State.FAILED
        match state, cmd, type:
            case State.AWAITING_HELLO, Cmd.HELLO, HelloServer.TYPE:
                answer = self._on_hello(body, unix_now)
            case State.AWAITING_HELLO, Cmd.HELLO, HelloRefused.TYPE:
                raise LinkRefused(_REFUSALS[HelloRefused.decode(body).reason])
            case _:
                raise _out_of_place(state, cmd, type)
        self.state = State.DONE
        return answer

    def _on_hello(self, body: bytes, unix_now: int) -> bytes:
        hello = HelloServer.decode(body)
        if hello.net_id != self._hello.net_id:
            raise LinkRefused(_REFUSALS[HelloRefusal.WRONG_NETWORK])
        if hello.version not in self._hello.versions:
            raise ProtocolViolation(f"the server chose version {hello.version}, which was not offered")
        if hello.relay_id != self._expected:
            raise LinkRefused("another relay answers at this address")
        signed = _server_proof(self._hello_body, body, self._leaf_digest)
        _check_relay(hello.relay_id, hello.signing_cert, "link-server", signed, hello.signature)
        _check_not_expired(hello.signing_cert, unix_now, hello.window)
        transcript = _transcript(self._hello_body, body, self._leaf_digest)
        self.peer = Peer(
            relay_id=hello.relay_id,
            signing_key=hello.signing_cert.signing_key,
            features=hello.features,
            observed=hello.observed,
            window=hello.window,
            transcript=transcript,
        )
        return self._auth(self._identity, transcript) if self._identity else b""

    @staticmethod
    def _auth(identity: LinkIdentity, transcript: bytes) -> bytes:
        signature = identity.signing_secret.sign("link-client", transcript)
        return fragment(Cmd.AUTH, Auth.TYPE, Auth(identity.relay_id, identity.signing_cert, signature).encode())


class ServerHandshake:
    """The accepting end. `leaf_digest`: SHA-256 of its own certificate; `observed`: where the client comes from.

    Says nothing until a well-formed HELLO_C has come. With `refusing` it answers that with a refusal, once the client
    has named the right network.
    """

    def __init__(
        self,
        *,
        net_id: bytes,
        identity: LinkIdentity,
        leaf_digest: bytes,
        observed: Address,
        rng: Rng,
        features: int,
        versions: tuple[int, ...] = VERSIONS,
        refusing: HelloRefusal | None = None,
    ) -> None:
        self.peer: Peer | None = None
        self.state = State.AWAITING_HELLO
        self._net_id = net_id
        self._identity = identity
        self._leaf_digest = leaf_digest
        self._observed = observed
        self._rng = rng
        self._features = features
        self._versions = versions
        self._refusing = refusing
        self._client: Peer | None = None  # what is known of a relay that has still to prove itself

    def start(self) -> bytes:
        """Nothing: the client speaks first."""
        return b""

    def on_message(self, cmd: int, type: int, body: bytes, unix_now: int) -> bytes:  # noqa: A002 - the word of specs/
        """Handles one control message of the client; returns cells to send.

        Raises LinkRefused, whose `answer` is still to be sent, or ProtocolViolation.
        """
        state, self.state = self.state, State.FAILED
        answer = b""
        match state, cmd, type:
            case State.AWAITING_HELLO, Cmd.HELLO, HelloClient.TYPE:
                answer = self._on_hello(body, unix_now)
            case State.AWAITING_AUTH, Cmd.AUTH, Auth.TYPE if self._client:
                self.peer = self._on_auth(self._client, body, unix_now)
            case _:
                raise _out_of_place(state, cmd, type)
        self.state = State.DONE if self.peer else State.AWAITING_AUTH
        return answer

    def _on_hello(self, body: bytes, unix_now: int) -> bytes:
        hello = HelloClient.decode(body)
        if hello.net_id != self._net_id:
            raise _refusal(HelloRefusal.WRONG_NETWORK)
        if self._refusing is not None:
            raise _refusal(self._refusing)
        common = set(hello.versions) & set(self._versions)
        if not common:
            raise _refusal(HelloRefusal.NO_VERSION)
        answer = self._answer(body, max(common), unix_now // TIME_WINDOW)
        self._client = Peer(
            relay_id=None,
            signing_key=None,
            features=hello.features,
            observed=None,
            window=unix_now // TIME_WINDOW,
            transcript=_transcript(body, answer, self._leaf_digest),
        )
        if hello.want_role is LinkRole.CLIENT:
            self.peer = self._client
        return fragment(Cmd.HELLO, HelloServer.TYPE, answer)

    def _answer(self, hello_body: bytes, version: int, window: int) -> bytes:
        unsigned = HelloServer(
            net_id=self._net_id,
            version=version,
            features=self._features,
            nonce=self._rng.token(NONCE),
            relay_id=self._identity.relay_id,
            signing_cert=self._identity.signing_cert,
            observed=self._observed,
            window=window,
            signature=NO_SIGNATURE,
        ).encode()
        proof = _server_proof(hello_body, unsigned, self._leaf_digest)
        return unsigned[:-SIGNATURE_SIZE] + self._identity.signing_secret.sign("link-server", proof)

    @staticmethod
    def _on_auth(client: Peer, body: bytes, unix_now: int) -> Peer:
        auth = Auth.decode(body)
        _check_relay(auth.relay_id, auth.signing_cert, "link-client", client.transcript, auth.signature)
        _check_not_expired(auth.signing_cert, unix_now, client.window)
        return replace(client, relay_id=auth.relay_id, signing_key=auth.signing_cert.signing_key)


def _server_proof(hello_c: bytes, hello_s: bytes, leaf_digest: bytes) -> bytes:
    """What the server signs, from the bodies as they travelled. The signature ends HELLO_S and is not part of it."""
    return hashlib.sha256(hello_c + hello_s[:-SIGNATURE_SIZE]).digest() + leaf_digest


def _transcript(hello_c: bytes, hello_s: bytes, leaf_digest: bytes) -> bytes:
    return hashlib.sha256(hello_c + hello_s + leaf_digest).digest()


def _check_relay(relay_id: RelayId, cert: SigningCert, thing: str, signed: bytes, signature: bytes) -> None:
    """Raises BadSignature unless the key that `relay_id` certified signed this."""
    check_signing_cert(relay_id, cert)
    verify(cert.signing_key, thing, signed, signature)


def _check_not_expired(cert: SigningCert, unix_now: int, window: int) -> None:
    """After the signatures: only then is the relay's own clock its word, and worth showing to a person."""
    if cert.not_after <= unix_now:
        raise LinkRefused(
            f"the relay's signing certificate ended at {cert.not_after}; this clock says {unix_now}, "
            f"the server's {window * TIME_WINDOW} (unix seconds)"
        )


def _refusal(reason: HelloRefusal) -> LinkRefused:
    return LinkRefused(_REFUSALS[reason], fragment(Cmd.HELLO, HelloRefused.TYPE, HelloRefused(reason).encode()))


def _out_of_place(state: State, cmd: int, kind: int) -> ProtocolViolation:
    return ProtocolViolation(f"link handshake: message {cmd}/{kind} in state {state.name}")
