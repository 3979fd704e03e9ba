"""Keys of LocalStack's AWS KMS, behind what answers as AWS where LocalStack does not."""

import base64
import contextlib
import secrets
import textwrap
from types import MappingProxyType
from urllib.parse import unquote

import botocore.session
from botocore.loaders import create_loader

from kmsbridge.testing import KeyAddress, ProxiedHarness
from localstack.aws_front import AwsFront
from tests.backends import facts

REGION = "eu-west-1"
LOOK = ("DescribeKey", "GetPublicKey")
ROLES = {
    "both": None,
    "encrypt-only": ("Encrypt", *LOOK),
    "decrypt-only": ("Decrypt", "DescribeKey"),
}
LOADER = create_loader()  # reads the descriptions of AWS's services once
PROXY = "http://{}:{}"
JOINED = "LocalStack joins the pairs of a context without separators; AWS does not"


def plain_client(service="kms", region=REGION, endpoint=None, access_key_id="test"):
    """The SDK alone, at LocalStack itself."""
    session = botocore.session.Session()
    session.register_component("data_loader", LOADER)
    return session.create_client(
        service,
        region,
        endpoint_url=endpoint or facts("aws")["endpoint"],
        aws_access_key_id=access_key_id,
        aws_secret_access_key="test",
    )


class AwsHarness(ProxiedHarness):
    """Two symmetric keys, made when they are first asked for."""

    sdk = ("boto3", "botocore")
    cannot = MappingProxyType(
        {
            f"test_wrong_context_is_refused[boundary moved between {where}]": JOINED
            for where in ("pairs", "name and value")
        }
    )
    spec = "SYMMETRIC_DEFAULT"

    def __init__(self):
        self._end = contextlib.ExitStack()
        self.front = self._end.enter_context(AwsFront(facts("aws")["endpoint"]))
        super().__init__(*self.front.address)
        self.kms = self._end.enter_context(contextlib.closing(plain_client()))
        self._keys = {}
        self._secret, self._token = secrets.token_hex(20), secrets.token_hex(20)
        self._callers = {role: f"AKIA{secrets.token_hex(8).upper()}" for role in ROLES}
        for role, caller in self._callers.items():
            self.front.allow(caller, ROLES[role])
        self.secrets = [self._secret.encode(), self._token.encode()]

    def arn(self, which):
        """The key's ARN."""
        if which not in self._keys:
            made = self.kms.create_key(KeySpec=self.spec, KeyUsage="ENCRYPT_DECRYPT")
            self._keys[which] = made["KeyMetadata"]["Arn"]
        return self._keys[which]

    def address(self, which, role="both"):
        return self.at(self.arn(which), role=role)

    def at(self, name, role="both", endpoint=PROXY, **more):
        """This name of a key, at the proxy."""
        credentials = {
            "access_key_id": self._callers[role],
            "secret_access_key": self._secret,
            "session_token": self._token,
        }
        place = endpoint.format(*self.proxy.address)
        region = "" if name.startswith("arn:") else f"&region={REGION}"
        uri = f"aws-kms://{name}?endpoint_url={place}{region}"
        return KeyAddress(uri, {**credentials, **more})

    def named(self, name):
        """As an alias; where it has a slash, which an alias may have, as a key id, which may not."""
        return self.at(name if "/" in unquote(name) else f"alias/{name}")

    def rotate(self, which):
        self.kms.rotate_key_on_demand(KeyId=self.arn(which))
        self.front.forget_materials()

    def disable(self, which):
        self.kms.disable_key(KeyId=self.arn(which))

    def enable(self, which):
        self.kms.enable_key(KeyId=self.arn(which))

    def schedule_deletion(self, which):
        self.kms.schedule_key_deletion(KeyId=self.arn(which), PendingWindowInDays=7)

    def delete(self, which):
        self.front.delete(self.arn(which))

    def expire_credentials(self):
        for caller in self._callers.values():
            self.front.expire(caller)

    def calls(self, which):
        counts = self.front.counts
        return sum(counts[action, self.arn(which)] for action in ("Encrypt", "Decrypt", "ReEncrypt"))

    def misdirected(self, why):
        endpoint, ca_file = self.wrong_address(why)
        more = {"ca_file": ca_file} if ca_file else {"allow_plain_http": True}
        return self.at(self.arn("first"), endpoint=endpoint, **more)

    def close(self):
        super().close()
        self._end.close()


class AsymmetricAwsHarness(AwsHarness):
    """Two RSA keys whose public keys are pinned."""

    spec = "RSA_2048"
    cannot = MappingProxyType({"rotate": "AWS KMS does not rotate asymmetric keys"})

    def at(self, name, role="both", endpoint=PROXY, **more):
        found = next((which for which, arn in self._keys.items() if arn == name), "first")
        return super().at(name, role, endpoint, **{**self._pinned(found), **more})

    def _pinned(self, which):
        der = self.kms.get_public_key(KeyId=self.arn(which))["PublicKey"]
        return {"algorithm": "RSA-OAEP-SHA-256", "public_key": pem(der)}


def pem(der):
    """What `aws kms get-public-key` and `openssl` make of an answer."""
    lines = textwrap.fill(base64.b64encode(der).decode(), 64)
    return f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n"
