"""Keys of the Transit engine of a real OpenBao, and power over them."""

import json
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import requests
from kmsbridge_vault import VaultTransitDriver

from kmsbridge.driver import KeyURI, Options
from kmsbridge.testing import KeyAddress, ProxiedHarness
from tests.backends import facts

CONNECTIONS = requests.Session()
CONNECTIONS.trust_env = False
USES = ("encrypt", "decrypt", "rewrap")
ROLES = {"both": ("encryptor", "decryptor", "rewrapper", "admin"), "encrypt-only": ("encryptor",)}
ROLES["decrypt-only"] = ("decryptor",)


class Vault:
    """A server as its administrator asks it, with what can be made on it. Closing it removes what was made."""

    def __init__(self, name="vault"):
        known = facts(name)
        self.address, self.token = known["address"], known.get("token") or known["root_token"]
        self.ca_file = known.get("ca_file", "")
        self.audit_file = Path(known.get("audit_file", ""))

    def ask(self, method, path, body=None, *, token=None, check=True, **headers):
        """The answer's JSON, without `check` the response itself."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = CONNECTIONS.request(
            method,
            f"{self.address}/v1/{path}",
            json=body,
            headers={"X-Vault-Token": token or self.token, **headers},
            verify=self.ca_file or True,
            timeout=30,
        )
        if not check:
            return answer
        assert answer.ok, answer.text
        return answer.json() if answer.content else {}

    def key(self, *, mount="transit", **settings):
        """A new key's name."""
        name = f"key-{secrets.token_hex(6)}"
        self.ask("POST", f"{mount}/keys/{name}", settings)
        return name

    def policy(self, text):
        """A new policy's name."""
        name = f"policy-{secrets.token_hex(6)}"
        self.ask("POST", f"sys/policies/acl/{name}", {"policy": text})
        return name

    def new_token(self, *policies, **settings):
        """A token with these policies and the default one."""
        made = self.ask("POST", "auth/token/create", {"policies": list(policies), **settings})
        return made["auth"]["client_token"]

    def audited_as(self, token):
        """How the audit file writes this token."""
        return self.ask("POST", "sys/audit-hash/requests", {"input": token})["data"]["hash"]

    def audited(self, since=0):
        """The requests in the audit file after `since` bytes."""
        with self.audit_file.open("rb") as file:
            file.seek(since)
            lines = file.read().splitlines()
        events = [json.loads(line) for line in lines if b'"type":"request"' in line]
        return [each["request"] for each in events]


class VaultHarness(ProxiedHarness):
    """Two AEAD keys, behind a proxy; `role` is a token's, with the policies that the driver prints."""

    sdk = ("hvac", "requests", "urllib3")
    derived = False

    def __init__(self):
        self.vault = Vault()
        super().__init__(urlsplit(self.vault.address).hostname, urlsplit(self.vault.address).port)
        self._since = self.vault.audit_file.stat().st_size
        self._keys = {which: self.vault.key(derived=self.derived) for which in ("first", "second")}
        self._tokens = {}
        self._policies = []
        self.secrets = []

    def address(self, which, role="both"):
        return self._at(
            "http://{}:{}".format(*self.proxy.address), self._keys[which], self._token(which, role)
        )

    def named(self, name):
        anything = 'path "transit/*" {\n  capabilities = ["create", "read", "update"]\n}\n'
        token = self._tokens.get("named") or self._new_token("named", anything)
        return self._at("http://{}:{}".format(*self.proxy.address), name, token)

    def misdirected(self, why):
        address, ca_file = self.wrong_address(why)
        more = {"ca_file": ca_file} if ca_file else {"allow_plain_http": True}
        return self._at(address, self._keys["first"], self._token("first", "both"), **more)

    def rotate(self, which):
        self.vault.ask("POST", f"transit/keys/{self._keys[which]}/rotate")

    def disable(self, which):
        self.vault.ask("DELETE", f"transit/keys/{self._keys[which]}/soft-delete")

    def enable(self, which):
        self.vault.ask("POST", f"transit/keys/{self._keys[which]}/soft-delete-restore")

    def schedule_deletion(self, which):
        self._allow_deletion(which)
        self.disable(which)

    def delete(self, which):
        self._allow_deletion(which)
        self.vault.ask("DELETE", f"transit/keys/{self._keys[which]}")

    def expire_credentials(self):
        for token in self._tokens.values():
            self.vault.ask("POST", "auth/token/revoke", {"token": token})

    def calls(self, which):
        paths = {f"transit/{use}/{self._keys[which]}" for use in USES}
        return sum(each["path"] in paths for each in self.vault.audited(self._since))

    def close(self):
        super().close()
        self.expire_credentials()
        for policy in self._policies:
            self.vault.ask("DELETE", f"sys/policies/acl/{policy}")
        for which, name in self._keys.items():
            if self.vault.ask("GET", f"transit/keys/{name}", check=False).ok:
                self.enable(which)
                self.delete(which)

    def _allow_deletion(self, which):
        self.vault.ask("POST", f"transit/keys/{self._keys[which]}/config", {"deletion_allowed": True})

    def _at(self, address, name, token, **more):
        derived = {"derived": True} if self.derived else {}
        auth = {"method": "token", "renew": False, "token": token}
        return KeyAddress(
            f"vault-transit://transit/{name}", {"address": address, "auth": auth, **derived, **more}
        )

    def _token(self, which, role):
        if (which, role) not in self._tokens:
            self._new_token((which, role), *self._policies_of(which, role))
        return self._tokens[which, role]

    def _policies_of(self, which, role):
        address = self._at("http://127.0.0.1:1", self._keys[which], "none")
        driver = VaultTransitDriver.open(KeyURI.parse(address.uri), Options(address.options))
        return [driver.policy(each) for each in ROLES[role]]

    def _new_token(self, what, *texts):
        made = [self.vault.policy(text) for text in texts]
        self._policies += made
        self._tokens[what] = token = self.vault.new_token(*made, ttl="1h")
        self.secrets = [each.encode() for each in self._tokens.values()]
        return token


class DerivedVaultHarness(VaultHarness):
    """Keys made for derivation, which the server rewraps."""

    derived = True
