"""The policy of each role, in Vault's policy language."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from kmsbridge.driver import PolicyRole
from kmsbridge_vault.naming import KeyName

_READ: Final = ("keys", ("read",))

_AEAD: Final[Mapping[PolicyRole, Sequence[tuple[str, Sequence[str]]]]] = {
    "encryptor": (("encrypt", ("update",)), _READ),
    "decryptor": (("decrypt", ("update",)),),
    "rewrapper": (("decrypt", ("update",)), ("encrypt", ("update",)), _READ),
    "admin": (),
}
_DERIVED: Final[Mapping[PolicyRole, Sequence[tuple[str, Sequence[str]]]]] = {
    "encryptor": (("encrypt", ("update",)), _READ),
    "decryptor": (("decrypt", ("update",)), _READ),
    "rewrapper": (("rewrap", ("update",)), _READ),
    "admin": (),
}
_ABOUT: Final[Mapping[tuple[PolicyRole, bool], str]] = {
    ("encryptor", False): "Wraps data keys; cannot unwrap them.",
    ("encryptor", True): "Wraps data keys; cannot unwrap them. To wrap it needs the read as well.",
    ("decryptor", False): "Unwraps data keys; cannot wrap any.",
    ("decryptor", True): "Unwraps data keys; cannot wrap any. To unwrap it needs the read as well.",
    ("rewrapper", False): (
        "Unwraps and wraps: Vault cannot rewrap with associated data, so this role can decrypt."
    ),
    ("rewrapper", True): "Has Vault rewrap data keys without seeing them; cannot unwrap them.",
    ("admin", False): "Makes, configures and rotates the key; cannot use it.",
    ("admin", True): "Makes, configures and rotates the key; cannot use it.",
}


def policy(name: KeyName, role: PolicyRole, *, derived: bool) -> str:
    """Return the policy as HCL, for `bao policy write` in the key's namespace."""
    if role == "admin":
        grants = [
            (name.path("keys"), ("create", "read", "update")),
            (f"{name.path('keys')}/rotate", ("update",)),
            (f"{name.path('keys')}/config", ("update",)),
        ]
    else:
        table = _DERIVED if derived else _AEAD
        grants = [(name.path(operation), tuple(rights)) for operation, rights in table[role]]
    rules = [
        "path {} {{\n  capabilities = [{}]\n}}\n".format(
            json.dumps(path, ensure_ascii=False), ", ".join(f'"{right}"' for right in rights)
        )
        for path, rights in grants
    ]
    return f"# {role} of {name.mount}/{name.key}. {_ABOUT[role, derived]}\n" + "\n".join(rules)
