"""The IAM policy of a key for each role, as gcloud takes it."""

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
    """YAML: comments, then the bindings as JSON, which YAML includes."""
    words = (_ASYMMETRIC if asymmetric else _SYMMETRIC)[role].split()
    roles = [f"roles/cloudkms.{word}" for word in words if not (pinned and word == "publicKeyViewer")]
    parts = key.split("/")
    where = f"{parts[7]} --keyring={parts[5]} --location={parts[3]} --project={parts[1]}"
    lines = [f"IAM policy of the key {key} for its {role}; put the caller's name for {MEMBER}."]
    lines += [
        "To add to the policy that the key has:",
        *(
            f"  gcloud kms keys add-iam-policy-binding {where} --member={MEMBER} --role={each}"
            for each in roles
        ),
        f"To replace it by this file:  gcloud kms keys set-iam-policy {where.partition(' ')[0]} FILE "
        + where.partition(" ")[2],
    ]
    if not roles:
        lines[1:] = ["None is needed: this host wraps with the public key that it holds, and asks nobody."]
    document = {"bindings": [{"role": each, "members": [MEMBER]} for each in roles]}
    return "".join(f"# {line}\n" for line in lines) + json.dumps(document, indent=2) + "\n"
