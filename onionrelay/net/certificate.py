"""The ephemeral certificate of a TLS listener: a fresh key, a random name, and nothing to recognise its owner by.

Who a relay is gets proved inside the link (specs/10-tls-links.md), bound to the digest of this certificate. Its dates
are the same everywhere, so that they tell neither when the process started nor what its clock says; nobody checks them.
"""

import hashlib
import secrets
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOT_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280's "no well-defined end"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed P-256 leaf. `der` is what peers see, `digest` its SHA-256."""

    der: bytes
    digest: bytes
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> "Certificate":
        """A new key and certificate; one per listener and process start."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(8))])
        leaf = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(NOT_AFTER)
            .sign(key, hashes.SHA256())
        )
        der = leaf.public_bytes(serialization.Encoding.DER)
        return cls(der, hashlib.sha256(der).digest(), key)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make `context` serve this certificate.

        `ssl` reads keys from files only. The one written here is private to the user, gone when this returns, and holds
        the key encrypted under a password that never leaves memory: what a disk may keep of it is worthless.
        """
        password = secrets.token_bytes(32).hex().encode()
        key_pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        )
        with tempfile.NamedTemporaryFile(prefix="onionrelay-") as file:  # created 0600
            file.write(key_pem + ssl.DER_cert_to_PEM_cert(self.der).encode())
            file.flush()
            context.load_cert_chain(file.name, password=password)
