"""Certificates for TLS on the loopback interface, good for an hour, made with a CA that nobody trusts."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PRIVATE = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


@dataclass(frozen=True, slots=True)
class LoopbackCertificates:
    """Files of PEM: the CA's certificate, and the key and certificate of a server on 127.0.0.1."""

    ca_file: str
    server_file: str

    @classmethod
    def make(cls, folder: str | os.PathLike[str]) -> Self:
        """Make both in `folder`."""
        ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca_name, server_name = _name("a CA of a test"), _name("localhost")
        ca = _builder(ca_name, ca_name, ca_key)
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        server = _builder(server_name, ca_name, server_key)
        addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        server = server.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        files = cls(str(Path(folder) / "ca.pem"), str(Path(folder) / "server.pem"))
        Path(files.ca_file).write_bytes(_pem(ca.sign(ca_key, hashes.SHA256())))
        Path(files.server_file).write_bytes(
            server_key.private_bytes(*_PRIVATE) + _pem(server.sign(ca_key, hashes.SHA256()))
        )
        return files

    def server_context(self) -> ssl.SSLContext:
        """For the server's side of a connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
