"""Vectors of specs/10-tls-links.md: whole link handshakes. Put together by hand, without the package's own encoders."""

from ipaddress import ip_address

from nacl.signing import SigningKey

from tests.seeded import SeededRng
from tests.vectors.model import sha256

NOW = 1_800_000_000
NET = bytes.fromhex("0f1e2d3c4b5a6978")


def draw(name, size=32):
    return SeededRng(f"handshake {name}").token(size)


def public(seed):
    return SigningKey(seed).verify_key.encode()


def sign(seed, thing, body):
    return SigningKey(seed).sign(b"onionrelay/" + thing + b"/1\0" + body).signature


class Relay:
    def __init__(self, name, not_after=NOW + 86_400):
        self.seed, self.signing_seed, self.not_after = draw(f"{name} id"), draw(f"{name} signing"), not_after
        self.id = public(self.seed)
        self.cert = self.certify(self.seed)

    def certify(self, seed):
        body = public(self.signing_seed) + self.not_after.to_bytes(4)
        return body + sign(seed, b"signing-cert", body)

    def plain(self):
        return {
            "relay_seed": self.seed.hex(),
            "relay_id": self.id.hex(),
            "signing_seed": self.signing_seed.hex(),
            "cert_not_after": self.not_after,
        }


SERVER, CLIENT, OTHER = Relay("server"), Relay("client"), Relay("other")


def hello_c(name, versions, role, *, net=NET):
    listed = b"".join(version.to_bytes(2) for version in versions)
    fields = [net, bytes([len(versions)]), listed, (9).to_bytes(8), draw(f"{name} C"), bytes([role, 0])]
    return b"".join(fields)


def hello_s(name, observed, hello, leaf, version=1, *, net=NET, relay=SERVER.id, cert=SERVER.cert, **signing):
    host, port = observed
    ip = ip_address(host)
    packed = ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed
    window = (NOW // 600).to_bytes(4)
    unsigned = net + version.to_bytes(2) + (15).to_bytes(8) + draw(f"{name} S") + relay + cert + packed
    unsigned += port.to_bytes(2) + window
    proof = sha256(hello, unsigned) + leaf
    return unsigned + sign(signing.get("key", SERVER.signing_seed), signing.get("thing", b"link-server"), proof)


def auth(transcript, relay=CLIENT.id, cert=CLIENT.cert, key=CLIENT.signing_seed, thing=b"link-client"):
    return relay + cert + sign(key, thing, transcript)


IPV4, IPV6 = ("198.51.100.7", 40_000), ("2001:db8::7", 65_535)
LEAF = sha256(b"leaf certificate")


def complete(name, observed, offered, known, client=None):
    hello = hello_c(name, offered, client is not None)
    answer = hello_s(name, observed, hello, LEAF, max(set(offered) & set(known)))
    transcript = sha256(hello, answer, LEAF)
    return {
        "name": name,
        "net_id": NET.hex(),
        "leaf_digest": LEAF.hex(),
        "unix_now": NOW,
        "server": SERVER.plain() | {"versions": known, "features": 15, "nonce": draw(f"{name} S").hex()},
        "client": (client.plain() if client else {})
        | {"versions": offered, "features": 9, "nonce": draw(f"{name} C").hex()},
        "observed": f"[{observed[0]}]:{observed[1]}" if ":" in observed[0] else f"{observed[0]}:{observed[1]}",
        "hello_c": hello.hex(),
        "hello_s": answer.hex(),
        "transcript": transcript.hex(),
        "auth": auth(transcript).hex() if client else "",
    }


def handshake_vectors():
    accept = [
        complete("an anonymous client over IPv4", IPV4, [1], [1]),
        complete("an anonymous client over IPv6, later versions on both sides", IPV6, [1, 2, 5], [1, 2, 3]),
        complete("a relay", IPV4, [1], [1], CLIENT),
    ]
    return {
        "chapter": "specs/10-tls-links.md",
        "about": "Link handshakes: the bodies of HELLO_C, HELLO_S and AUTH. `answer` is the body of HELLO_REFUSED.",
        "accept": accept,
        "reject": [*at_client(accept[0]), *at_server(accept[2])],
    }


def at_client(good):
    """HELLO_S, or what the client knows, differs from the first accepted handshake. Signed anew where not said."""
    name, hello = good["name"], bytes.fromhex(good["hello_c"])
    answer = bytes.fromhex(good["hello_s"])
    own_cert, ended = OTHER.certify(OTHER.seed), Relay("server", NOW)

    def case(what, error, body=answer, **knows):
        return {"name": what, "of": name, "at": "client", "hello_s": body.hex(), **knows, "error": error}

    def other(**changes):
        return hello_s(name, IPV4, hello, LEAF, **changes)

    return [
        case("the client saw another leaf", "BadSignature", leaf_digest=sha256(b"another leaf").hex()),
        case("another relay was dialled", "LinkRefused", expected=OTHER.id.hex()),
        case("for another network", "LinkRefused", other(net=bytes(8))),
        case("a version that was not offered", "ProtocolViolation", other(version=2)),
        case("the certificate of another relay", "BadSignature", other(cert=OTHER.cert, key=OTHER.signing_seed)),
        case("a certificate issued by its own key", "BadSignature", other(cert=own_cert, key=OTHER.signing_seed)),
        case("signed by the relay id", "BadSignature", other(key=SERVER.seed)),
        case("signed as a client", "BadSignature", other(thing=b"link-client")),
        case("signed for another HELLO_C", "BadSignature", hello_s(name, IPV4, hello + b"\0\1\0\0", LEAF)),
        case("observed address changed, not signed anew", "BadSignature", flipped(answer, -64 - 5)),
        case("the certificate ends now", "LinkRefused", other(cert=ended.cert)),
        case("the clock says that it ended", "LinkRefused", unix_now=NOW + 86_400),
    ]


def at_server(good):
    """HELLO_C or AUTH differ from the accepted handshake of a relay; nonces do not."""
    name, transcript = good["name"], bytes.fromhex(good["transcript"])

    def hello(what, body, answer):
        return {
            "name": what,
            "of": name,
            "at": "server",
            "hello_c": body.hex(),
            "answer": answer,
            "error": "LinkRefused",
        }

    def proof(what, error, body):
        return {"name": what, "of": name, "at": "server", "auth": body.hex(), "answer": "", "error": error}

    ended = Relay("client", NOW)
    return [
        hello("a client of another network", hello_c(name, [1], 0, net=bytes(8)), "01"),
        hello("another network and no common version", hello_c(name, [7], 0, net=bytes(8)), "01"),
        hello("no common version", hello_c(name, [2, 3], 0), "02"),
        proof("AUTH for another transcript", "BadSignature", auth(sha256(b"another link"))),
        proof("AUTH signed as a server", "BadSignature", auth(transcript, thing=b"link-server")),
        proof("AUTH without the certified key", "BadSignature", auth(transcript, key=OTHER.signing_seed)),
        proof("AUTH with another relay's id", "BadSignature", auth(transcript, relay=OTHER.id)),
        proof("AUTH with an ended certificate", "LinkRefused", auth(transcript, cert=ended.cert)),
    ]


def flipped(body, at):
    at %= len(body)
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
