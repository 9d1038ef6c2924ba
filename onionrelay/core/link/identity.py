"""The certificate by which a relay id, which may be kept offline, vouches for the key that signs day by day.

specs/01-identity.md; its bytes are in specs/02-wire.md.
"""

from onionrelay.base.ids import RelayId, SigningKey
from onionrelay.crypto.signing import SigningSecret, verify
from onionrelay.wire.link import SigningCert

THING = "signing-cert"


def make_signing_cert(relay_secret: SigningSecret, signing_public: bytes, not_after: int) -> SigningCert:
    """The relay id's word that `signing_public` (32 bytes) signs for it until `not_after`, in unix seconds."""
    unsigned = SigningCert(SigningKey(signing_public), not_after, bytes(64))
    return SigningCert(unsigned.signing_key, not_after, relay_secret.sign(THING, unsigned.signed_part))


def check_signing_cert(relay_id: RelayId, cert: SigningCert) -> None:
    """Raises BadSignature unless `relay_id` issued `cert`. Whether it is still valid is the caller's to ask."""
    verify(relay_id, THING, cert.signed_part, cert.signature)
