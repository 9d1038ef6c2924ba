import hashlib
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from onionrelay.net.certificate import Certificate


def test_what_it_tells():
    first, second = (x509.load_der_x509_certificate(Certificate.generate().der) for _ in range(2))
    assert isinstance(first.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(first.public_key().curve, ec.SECP256R1)
    assert first.public_key() != second.public_key()
    assert first.subject == first.issuer != second.subject
    assert first.serial_number != second.serial_number
    assert first.not_valid_before_utc == second.not_valid_before_utc
    assert first.not_valid_after_utc == second.not_valid_after_utc
    assert len(first.subject) == 1
    assert not list(first.extensions)
    first.verify_directly_issued_by(first)


def test_digest():
    certificate = Certificate.generate()
    assert certificate.digest == hashlib.sha256(certificate.der).digest()
    assert "_key" not in repr(certificate)


def test_the_key_on_disk_is_private_encrypted_and_gone(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []

    class Watching(ssl.SSLContext):
        def load_cert_chain(self, certfile, keyfile=None, password=None):
            path = Path(certfile)
            seen.append((path.read_bytes(), path.stat().st_mode & 0o777, path.parent))
            super().load_cert_chain(certfile, keyfile, password)

    Certificate.generate().load_into(Watching(ssl.PROTOCOL_TLS_SERVER))
    (content, mode, folder) = seen[0]
    assert b"ENCRYPTED PRIVATE KEY" in content
    assert content.count(b"PRIVATE KEY") == 2  # the encrypted one's two lines
    assert (mode, folder) == (0o600, tmp_path)
    assert list(tmp_path.iterdir()) == []
