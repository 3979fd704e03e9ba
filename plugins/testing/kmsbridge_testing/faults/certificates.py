"""Certificates for TLS on the loopback interface, valid for an hour, from a CA made for the test."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PRIVATE = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)
_HOUR: Final = datetime.timedelta(hours=1)
_CA_USAGE: Final = x509.KeyUsage(
    key_cert_sign=True,
    **dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
            *("key_agreement", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    ),
)


@dataclass(frozen=True, slots=True)
class LoopbackCertificates:
    """PEM files for TLS on 127.0.0.1.

    `ca_file` is the CA's certificate, `server_file` the key and certificate of a server.
    """

    ca_file: str
    server_file: str

    @classmethod
    def make(cls, folder: str | os.PathLike[str], *, host: str = "", expired: bool = False) -> Self:
        """Make both files in `folder`.

        The server's certificate is for localhost and 127.0.0.1, or with `host` for that name only. With `expired` it
        expired an hour ago.
        """
        ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca_name, server_name = _name("a CA of a test"), _name(host or "localhost")
        ca = _builder(ca_name, ca_name, ca_key)
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        ca = ca.add_extension(_CA_USAGE, critical=True)
        ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        server = _builder(server_name, ca_name, server_key, expired=expired)
        addresses: list[x509.GeneralName] = [x509.DNSName(host or "localhost")]
        if not host:
            addresses.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        server = server.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        server = server.add_extension(issuer, critical=False)
        files = cls(str(Path(folder) / "ca.pem"), str(Path(folder) / "server.pem"))
        Path(files.ca_file).write_bytes(_pem(ca.sign(ca_key, hashes.SHA256())))
        Path(files.server_file).write_bytes(
            server_key.private_bytes(*_PRIVATE) + _pem(server.sign(ca_key, hashes.SHA256()))
        )
        return files

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context of a server with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    expired: bool = False,
) -> x509.CertificateBuilder:
    middle = datetime.datetime.now(datetime.UTC) - (2 * _HOUR if expired else 0 * _HOUR)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(middle - _HOUR)
        .not_valid_after(middle + _HOUR)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
