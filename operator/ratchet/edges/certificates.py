"""The identity of one sandbox generation: a self-signed certificate and a token.

Pod addresses are re-used, so an address proves nothing. The operator therefore makes a
certificate for each generation, puts it into a Secret that only the sandbox's server mounts, and
trusts exactly this one when it connects; the token is sent only after the handshake.
"""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=3650)
"""Longer than any task: what ends a sandbox's identity is the deletion of its Secret."""
CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a sandbox server proves itself with, and what it asks of its caller.

    `certificate` and `key` are PEM texts, `token` is hex. Never log this object's secrets:
    its repr leaves them out.
    """

    certificate: str
    key: str = field(repr=False)
    token: str = field(repr=False)


def server_name(task_uid: str, generation: int) -> str:
    """The name in a generation's certificate. A DNS name in form only; nothing resolves it.

    >>> server_name("0f3c9a1e-5555-4444-8888-121212121212", 2)
    'g2.0f3c9a1e-5555-4444-8888-121212121212.sandbox.ratchet'
    """
    return f"g{generation}.{task_uid}.sandbox.ratchet"


def make_identity(name: str, now: datetime | None = None) -> Identity:
    """A fresh EC P-256 key, a certificate for `name` signed with it, and a token of 256 bits."""
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ratchet sandbox")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Identity(
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        token=secrets.token_hex(32),
    )


def pinned_context(certificate: str) -> ssl.SSLContext:
    """A client's TLS context that accepts this certificate and no other. TLS 1.3.

    Raises ssl.SSLError or ValueError where `certificate` is not PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=certificate)
    return context
