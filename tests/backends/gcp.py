"""The contract's harness for Google Cloud KMS, over the emulator."""

import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from kmsbridge_gcp import GcpKmsDriver
from kmsbridge_gcp_emulator import Emulator

from kmsbridge.driver import KeyURI, Options
from kmsbridge.testing import Fault, KeyAddress, Misdirection, ProxiedHarness
from tests.backends import facts

_ROLES = {
    "both": ("cryptoKeyEncrypterDecrypter", "publicKeyViewer", "admin"),
    "encrypt-only": ("cryptoKeyEncrypter", "publicKeyViewer"),
    "decrypt-only": ("cryptoKeyDecrypter",),
}


def _answers(code):
    return lambda harness: harness.server_fails(lambda emulator, ring: emulator.fail(code, ring))


class GcpHarness(ProxiedHarness):
    """Two symmetric keys in a key ring of their own; callers are told apart by their access tokens."""

    sdk = ("grpc", "google.auth", "google.cloud.kms_v1")
    # What depends on the status is answered by the emulator: to gRPC, HTTP/1.1 is noise whatever it says.
    faults: ClassVar[Mapping] = MappingProxyType(
        {
            **ProxiedHarness.faults,
            Fault.THROTTLED: _answers("RESOURCE_EXHAUSTED"),
            Fault.INTERNAL: _answers("INTERNAL"),
            Fault.INTERNAL_LIST: _answers("DATA_LOSS"),
            Fault.REQUEST_TIMEOUT: _answers("ABORTED"),
            Fault.UNAVAILABLE: _answers("UNAVAILABLE"),
            Fault.GATEWAY_TIMEOUT: _answers("DEADLINE_EXCEEDED"),
            Fault.UNKNOWN_STATUS: _answers("UNKNOWN"),
            Fault.DELAY: lambda harness: harness.server_fails(
                lambda emulator, ring: emulator.delay(0.5, ring)
            ),
        }
    )
    algorithm = "GOOGLE_SYMMETRIC_ENCRYPTION"

    def __init__(self):
        endpoint = facts("gcp")["endpoint"]
        host, _, port = endpoint.rpartition(":")
        super().__init__(host, int(port))
        self.emulator = Emulator.at(endpoint)
        self.ring = f"projects/test/locations/global/keyRings/contract-{secrets.token_hex(8)}"
        self._tokens = {}
        self._keys = {}
        self._asked_before = None

    @property
    def secrets(self):
        return [token.encode() for token in self._tokens.values()]

    @secrets.setter
    def secrets(self, _none):
        """The base class begins with none."""

    def key(self, which):
        """The key's name."""
        if which not in self._keys:
            name = f"{self.ring}/cryptoKeys/{which}"
            self._keys[which] = self.emulator.create_key(name, algorithm=self.algorithm)
        return self._keys[which]

    def address(self, which, role="both"):
        return self._at(self.key(which), role)

    def named(self, name):
        return self._at(f"{self.ring}/cryptoKeys/{name}", "both")

    def rotate(self, which):
        with stock_client(self.emulator.endpoint) as client:
            made = client.create_crypto_key_version(parent=self.key(which))
            number = made.name.rpartition("/")[2]
            client.update_crypto_key_primary_version(name=self.key(which), crypto_key_version_id=number)

    def disable(self, which):
        self.emulator.set_state(self.key(which), "DISABLED")

    def enable(self, which):
        self.emulator.set_state(self.key(which), "ENABLED")

    def schedule_deletion(self, which):
        self.emulator.set_state(self.key(which), "DESTROY_SCHEDULED")

    def delete(self, which):
        self.emulator.delete_key(self.key(which))

    def expire_credentials(self):
        for token in self._tokens.values():
            self.emulator.revoke(token)

    def server_fails(self, fault):
        """Have the emulator answer wrongly, and count what arrives there."""
        self._asked_before = self.emulator.requests(self.ring)
        fault(self.emulator, self.ring)

    def heal_network(self):
        if self._asked_before is None:
            super().heal_network()
            return
        # The proxy is left alone: it would end the connections, which had nothing to do with the fault.
        self.emulator.heal(self.ring)
        self._asked_before = None

    def arrivals(self):
        if self._asked_before is None:
            return super().arrivals()
        return self.emulator.requests(self.ring) - self._asked_before

    def misdirected(self, why: Misdirection):
        url, ca_file = self.wrong_address(why)
        address = self._at(self.key("first"), "both")
        tls = {"insecure": False, "ca_file": ca_file} if ca_file else {"insecure": False}
        endpoint = url.partition("://")[2]
        return KeyAddress(address.uri, {**address.options, "endpoint": endpoint, **tls})

    def calls(self, which):
        methods = ("Encrypt", "Decrypt", "AsymmetricDecrypt")
        return sum(self.emulator.requests(self.key(which), method=each) for each in methods)

    def close(self):
        super().close()
        self.emulator.heal(self.ring)

    def _at(self, key, role):
        options = {
            "endpoint": "{}:{}".format(*self.proxy.address),
            "insecure": True,
            "access_token": self._token(role),
        }
        return KeyAddress(f"gcp-kms://{key}", options)

    def _token(self, role):
        if role not in self._tokens:
            self._tokens[role] = token = f"{role}-{secrets.token_hex(16)}"
            for each in _ROLES[role]:
                self.emulator.grant(token, f"roles/cloudkms.{each}", self.ring)
        return self._tokens[role]


class AsymmetricGcpHarness(GcpHarness):
    """Two RSA keys whose first versions' public keys are pinned."""

    cannot = {
        "rotate": "a new version has another public key, and takes another configuration",
    }
    algorithm = "RSA_DECRYPT_OAEP_2048_SHA256"

    def __init__(self):
        super().__init__()
        self._public_keys = {}

    def _at(self, key, role):
        address = super()._at(key, role)
        options = {"algorithm": "RSA-OAEP-SHA-256", "version": "1", "public_key": self._public_key(key)}
        return KeyAddress(address.uri, {**address.options, **options})

    def _public_key(self, key):
        if key not in self._public_keys:
            known = key if key in self._keys.values() else self.key("first")
            with stock_client(self.emulator.endpoint) as client:
                answer = client.get_public_key(name=f"{known}/cryptoKeyVersions/1")
            self._public_keys[key] = answer.pem
        return self._public_keys[key]


def stock_client(endpoint):
    """google-cloud-kms's own client at an emulator, as a context manager."""
    import grpc
    from google.cloud import kms_v1
    from google.cloud.kms_v1.services.key_management_service.transports import (
        KeyManagementServiceGrpcTransport,
    )

    channel = grpc.insecure_channel(endpoint)
    return kms_v1.KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))


def open_one(uri, options):
    """A driver, all of whose options were asked for."""
    checked = Options(options, name="keys.app")
    driver = GcpKmsDriver.open(KeyURI.parse(uri), checked)
    assert not checked.unknown()
    return driver
