"""The IAM policy of a key for each role, in gcloud's format."""

from __future__ import annotations

import json
from typing import Final

from kmsbridge.driver import PolicyRole

_SYMMETRIC: Final[dict[PolicyRole, str]] = {
    "encryptor": "cryptoKeyEncrypter",
    "decryptor": "cryptoKeyDecrypter",
    "rewrapper": "cryptoKeyEncrypterDecrypter",
    "admin": "admin",
}
_ASYMMETRIC: Final[dict[PolicyRole, str]] = {
    "encryptor": "publicKeyViewer",
    "decryptor": "cryptoKeyDecrypter",
    "rewrapper": "cryptoKeyDecrypter publicKeyViewer",
    "admin": "admin",
}
MEMBER: Final = "serviceAccount:NAME@PROJECT.iam.gserviceaccount.com"


def policy(key: str, role: PolicyRole, *, asymmetric: bool, pinned: bool) -> str:
    """Return the policy as YAML: comments, then the bindings as JSON, which YAML includes.

    `pinned` says whether the configuration contains the public key of an asymmetric key.
    """
    short_names = (_ASYMMETRIC if asymmetric else _SYMMETRIC)[role].split()
    if pinned and "publicKeyViewer" in short_names:
        short_names.remove("publicKeyViewer")
    roles = [f"roles/cloudkms.{name}" for name in short_names]
    parts = key.split("/")
    name, location = parts[7], f"--keyring={parts[5]} --location={parts[3]} --project={parts[1]}"
    lines = [f"IAM policy of the key {key} for its {role}; replace {MEMBER} with the caller's name."]
    if roles:
        lines += [
            "To add these roles to the key's policy:",
            *(
                f"  gcloud kms keys add-iam-policy-binding {name} {location} --member={MEMBER} --role={granted}"
                for granted in roles
            ),
            f"To replace the key's policy with this file:  gcloud kms keys set-iam-policy {name} FILE {location}",
        ]
    else:
        lines += ["No role is needed: this host wraps with the configured public key, without a call."]
    document = {"bindings": [{"role": granted, "members": [MEMBER]} for granted in roles]}
    return "".join(f"# {line}\n" for line in lines) + json.dumps(document, indent=2) + "\n"
