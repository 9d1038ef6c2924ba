"""Writes specs/vectors: `python -m tests.vectors.generate`. Every value comes from a seed, so a second run changes nothing.

ML-KEM ciphertexts are the exception: the library draws them itself, so those in build-kem.json are kept as they are.
"""

import json

from tests.vectors import builds, cells, handshakes, identity, reach
from tests.vectors.paths import VECTORS

FILES = {
    "bech32m": identity.bech32m_vectors,
    "ids": identity.ids_vectors,
    "sign": identity.sign_vectors,
    "blind": identity.blind_vectors,
    "build-kem": builds.kem_vectors,
    "build": builds.build_vectors,
    "build-reply": builds.reply_vectors,
    "layer": cells.layer_vectors,
    "layer-circuit": cells.circuit_vectors,
    "reach": reach.reach_vectors,
    "ticket": reach.ticket_vectors,
    "handshake": handshakes.handshake_vectors,
}


def text_of(vectors):
    return json.dumps(vectors, indent=1) + "\n"


def write_all():
    VECTORS.mkdir(exist_ok=True)
    for name, make in FILES.items():
        (VECTORS / f"{name}.json").write_text(text_of(make()))


if __name__ == "__main__":
    write_all()
