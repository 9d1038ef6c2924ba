"""Every vector file of the cryptographic chapters, against onionrelay.base and onionrelay.crypto."""

import hashlib
import json

import pytest

from onionrelay.base import bech32m, errors, ids
from onionrelay.crypto import blind, build, layer, onion_keys, reach, signing, ticket
from tests.crypto.circuit import SPARE, Circuit, new_cell
from tests.vectors import builds, cells, generate
from tests.vectors.paths import VECTORS

FILES = {name: json.loads((VECTORS / f"{name}.json").read_text()) for name in generate.FILES}
POINTS = [ids.NodeId, ids.RelayId, ids.SigningKey, ids.HandleKey, ids.BlindedKey, ids.RecordKey]


def cases(name, kind):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in FILES[name][kind]])


def unhex(case, *names):
    return [bytes.fromhex(case[name]) for name in names]


def named(name, case):
    return next(other for other in FILES[name]["accept"] if other["name"] == case)


def refused(case):
    return pytest.raises(getattr(errors, case["error"]))


def test_the_files_are_what_the_generator_writes():
    for name, make in generate.FILES.items():
        assert (VECTORS / f"{name}.json").read_text() == generate.text_of(make()), name


def test_names_are_unique():
    for name, file in FILES.items():
        names = [case["name"] for case in file["accept"] + file["reject"]]
        assert sorted(set(names)) == sorted(names), name


@cases("bech32m", "accept")
def test_bech32m(case):
    hrp, symbols = bech32m.decode(case["text"])
    assert (hrp, bytes(symbols).hex()) == (case["hrp"], case["symbols"])
    assert bech32m.encode(hrp, symbols) == case["text"].lower()


@cases("bech32m", "reject")
def test_bech32m_refused(case):
    with refused(case):
        bech32m.decode(case["text"])


@cases("ids", "accept")
def test_ids(case):
    seed, raw = unhex(case, "seed", "raw")
    assert signing.SigningSecret(seed).public == raw
    for kind, text in ((ids.NodeId, case["node_id"]), (ids.RelayId, case["relay_id"])):
        assert kind.parse(text) == kind.decode(raw)
        assert str(kind(raw)) == text


@cases("ids", "reject")
def test_ids_refused(case):
    if "raw" in case:
        for kind in POINTS:
            with refused(case):
                kind.decode(bytes.fromhex(case["raw"]))
    else:
        kind = {"node_id": ids.NodeId, "relay_id": ids.RelayId}[case["kind"]]
        with refused(case):
            kind.parse(case["text"])


@cases("sign", "accept")
def test_sign(case):
    seed, public, body, message, signature = unhex(case, "seed", "public", "body", "message", "signature")
    assert signing.signed_message(case["thing"], body) == message
    assert signing.SigningSecret(seed).sign(case["thing"], body) == signature
    signing.verify(ids.Ed25519Point.decode(public), case["thing"], body, signature)


@cases("sign", "reject")
def test_signatures_refused(case):
    refuse_signature(case)


@cases("blind", "reject")
def test_blinded_signatures_refused(case):
    refuse_signature(case)


def refuse_signature(case):
    public, body, signature = unhex(case, "public", "body", "signature")
    with refused(case):
        signing.verify(ids.Ed25519Point(public), case["thing"], body, signature)


@cases("blind", "accept")
def test_blind(case):
    seed, node_id, body, blinded, signature = unhex(case, "seed", "node_id", "body", "blinded", "signature")
    secret = signing.SigningSecret(seed)
    assert blind.blind_public(ids.NodeId.decode(node_id), case["period"]).raw == blinded
    key, made = blind.blind_sign(secret, case["period"], case["thing"], body)
    assert (secret.public, key.raw, made) == (node_id, blinded, signature)
    signing.verify(ids.BlindedKey.decode(blinded), case["thing"], body, signature)


def test_periods():
    for moment in FILES["blind"]["periods"]:
        assert blind.period_at(moment["unix"]) == moment["period"]


@cases("build-kem", "accept")
def test_kem(case):
    seed, key, ciphertext, shared = unhex(case, "seed", "key", "ciphertext", "secret")
    secret = onion_keys.OnionSecret(bytes(32), seed)
    assert secret.public.mlkem == key
    assert secret.open(builds.BASE_POINT, ciphertext)[0] == shared
    assert onion_keys.OnionPublic.decode(builds.BASE_POINT, key).digest == hashlib.sha256(key).digest()


@cases("build-kem", "reject")
def test_onion_keys_refused(case):
    with refused(case):
        onion_keys.OnionPublic.decode(*unhex(case, "x25519", "mlkem"))


class StoredBuild:
    """A case of build.json, played from the values in the file alone."""

    def __init__(self, case):
        self.case = case
        self.net_id, self.pad, self.message, self.reply_pad = unhex(case, "net_id", "pad", "message", "reply_pad")
        self.hops = case["hops"]
        self.kem = [FILES["build-kem"]["accept"][hop["kem"]] for hop in self.hops]
        self.secrets = [
            onion_keys.OnionSecret(bytes.fromhex(hop["x25519_secret"]), bytes.fromhex(kem["seed"]))
            for hop, kem in zip(self.hops, self.kem, strict=True)
        ]

    def sealer(self):
        hops = []
        for hop, kem in zip(self.hops, self.kem, strict=True):
            stored = tuple(unhex(kem, "secret", "ciphertext"))
            public = builds.StoredOnionPublic(bytes.fromhex(hop["x25519"]), bytes.fromhex(kem["key"]), stored)
            hops.append((bytes.fromhex(hop["identity"]), public))
        draws = [bytes.fromhex(hop["ephemeral_secret"]) for hop in self.hops]
        return build.CircuitSealer(self.net_id, hops, builds.ScriptedRng(*draws, self.pad))

    def sealed(self):
        sealer = self.sealer()
        message = sealer.seal([bytes.fromhex(hop["plaintext"]) for hop in self.hops])
        return sealer, message

    def open(self, hop, message, **changes):
        identity, reply_secret = unhex(self.hops[hop], "identity", "reply_ephemeral_secret")
        given = {"identity": identity, "net_id": self.net_id} | changes
        rng = builds.ScriptedRng(reply_secret, self.reply_pad)
        return build.open_build(message, [self.secrets[hop]], rng=rng, **given)

    def opened(self, count):
        opened, message = [], self.message
        for hop in range(count):
            opened.append(self.open(hop, message))
            message = opened[-1].onward
        return opened


def answer(opened, bodies):
    reply = None
    for hop, body in zip(reversed(opened), reversed(bodies), strict=True):
        reply = hop.reply(body, reply)
    return reply


@cases("build", "accept")
def test_build(case):
    stored = StoredBuild(case)
    sealer, message = stored.sealed()
    assert message == stored.message
    opened = stored.opened(len(stored.hops))
    for number, (hop, expected) in enumerate(zip(opened, stored.hops, strict=True)):
        received = stored.message if not number else opened[number - 1].onward
        assert hashlib.sha256(received).hexdigest() == expected["message_sha256"]
        assert hop.plaintext.hex() == expected["plaintext"]
        assert hop.ephemeral.hex() == sealer.ephemeral(number).hex() == expected["ephemeral"]
        assert hop.replay_tag.hex() == expected["replay_tag"]
        assert_keys(hop.keys, expected)
    reply = answer(opened, [bytes.fromhex(hop["body"]) for hop in stored.hops])
    assert reply.hex() == case["reply"]
    answers = sealer.open_reply(reply)
    assert not answers.garbled
    for hop, expected in zip(answers.hops, stored.hops, strict=True):
        assert hop.body == bytes.fromhex(expected["body"]).ljust(104, b"\0")
        assert_keys(hop.keys, expected)


def assert_keys(keys, expected):
    assert (keys.forward.hex(), keys.backward.hex(), keys.binding.hex()) == (
        expected["fwd"],
        expected["bwd"],
        expected["bind"],
    )


def changed(data, case):
    if "cut" in case:
        return data[: case["cut"]]
    if "at" not in case:
        return data
    at = case["at"]
    new = bytes.fromhex(case["put"]) if "put" in case else bytes([data[at] ^ case["flip"]])
    return data[:at] + new + data[at + len(new) :]


@cases("build", "reject")
def test_build_refused(case):
    stored = StoredBuild(named("build", case["of"]))
    message = stored.opened(case["hop"])[-1].onward if case["hop"] else stored.message
    changes = {name: bytes.fromhex(case[name]) for name in ("net_id", "identity") if name in case}
    stored.open(case["hop"], message)
    with refused(case):
        stored.open(case["hop"], changed(message, case), **changes)


@cases("build-reply", "accept")
def test_reply(case):
    stored = StoredBuild(named("build", case["of"]))
    bodies = [bytes.fromhex(body) for body in case["bodies"]]
    reply = answer(stored.opened(len(bodies)), bodies)
    assert reply.hex() == case["reply"]
    answers = stored.sealed()[0].open_reply(reply)
    assert [hop.body for hop in answers.hops] == [body.ljust(104, b"\0") for body in bodies]
    assert not answers.garbled


@cases("build-reply", "reject")
def test_reply_garbled(case):
    stored = StoredBuild(named("build", case["of"]))
    reply = changed(bytes.fromhex(stored.case["reply"]), case)
    answers = stored.sealed()[0].open_reply(reply)
    assert (len(answers.hops), answers.garbled) == (case["opened"], case["error"] == "garbled")


@cases("layer", "accept")
def test_layer(case):
    kind = {"enc": layer.LayerForEnc, "dec": layer.LayerForDec}[case["side"]]
    one = kind(bytes.fromhex(case["seed"]))
    for step in case["cells"]:
        size = step["size"] + 8
        cell = new_cell(size, step["cmd"], bytes(size - 24))
        one.mark(cell, 0)
        assert cell[8:24].hex() == step["N"]
        cell[8:-SPARE] = bytes([step["fill"]]) * step["size"]
        getattr(one, case["side"])(cell, 0, size)
        assert cell[8:24].hex() == step["out_left"]
        assert cells.sha256(cells.body(cell)) == step["out_sha256"]
        if "updated_seed" in step:
            one.update()
            again = kind(bytes.fromhex(step["updated_seed"]))
            again.mark(cell, 0)
            assert one.is_mine(cell, 0)


def circuit():
    seeds = [unhex(seed, "forward", "backward") for seed in FILES["layer-circuit"]["seeds"]]
    return Circuit(len(seeds), seeds=seeds)


@cases("layer-circuit", "accept")
def test_layers_of_a_circuit(case):
    here = circuit()
    for step in case["steps"]:
        travel = {"client": cells.forward_links, "hop": cells.backward_links}[step["from"]]
        links = travel(here, step["hop"], step["cmd"], step["fill"])
        assert list(map(cells.sha256, links)) == step["links"]


@cases("layer-circuit", "reject")
def test_an_altered_cell_is_not_recognised(case):
    assert case["error"] == "unrecognised"
    here, size = circuit(), cells.SIZES[case["cmd"]]
    if case["from"] == "client":
        cell = here.client.send(case["hop"], size, case["cmd"], bytes(size - 24))
        for hop in here.hops[: case["link"]]:
            assert not hop.receive(cell)
        cells.change(cell, case)
        assert here.deliver(cell, case["link"]) is None
    else:
        cell = here.hops[case["hop"]].originate(size, case["cmd"], bytes(size - 24))
        for hop in reversed(here.hops[case["link"] : case["hop"]]):
            hop.pass_back(cell)
        cells.change(cell, case)
        assert here.bring_back(cell, case["link"]) is None


def reach_inputs(case):
    node_id, blinded, salt, aad = unhex(case, "node_id", "blinded", "salt", "aad")
    names = {"node_id": ids.NodeId.decode(node_id), "blinded": ids.BlindedKey.decode(blinded)}
    return names | {"period": case["period"], "salt": salt, "aad": aad}


@cases("reach", "accept")
def test_reach(case):
    plaintext, ciphertext = unhex(case, "plaintext", "ciphertext")
    assert reach.seal_reach(plaintext, **reach_inputs(case)) == ciphertext
    assert reach.open_reach(ciphertext, **reach_inputs(case)) == plaintext


@cases("reach", "reject")
def test_reach_refused(case):
    whole = named("reach", case["of"]) | case
    with refused(case):
        reach.open_reach(bytes.fromhex(whole["ciphertext"]), **reach_inputs(whole))


@cases("ticket", "accept")
def test_ticket(case):
    key, subject = unhex(case, "k_ticket", "subject")
    assert ticket.build_ticket(key, subject).hex() == case["build"]
    assert ticket.live_ticket(key, subject).hex() == case["live"]
