"""The real servers that a page's blocks may use, each as if it were the page's own."""

from __future__ import annotations

import secrets

from tests.backends import facts
from tests.backends.vault import Vault


def variables(name: str) -> dict[str, str]:
    """Where the server is, in the variables that the provider's own tools read.

    An account or namespace of its own lets a page call its keys what it likes.
    """
    return {"aws": _aws, "vault": _vault}[name]()


def _aws() -> dict[str, str]:
    # To LocalStack, an access key id of twelve digits is an account.
    account = str(secrets.randbelow(9 * 10**11) + 10**11)
    return {
        "AWS_ENDPOINT_URL": facts("aws")["endpoint"],
        "AWS_ACCESS_KEY_ID": account,
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }


def _vault() -> dict[str, str]:
    server, namespace = Vault(), f"page-{secrets.token_hex(6)}"
    server.ask("POST", f"sys/namespaces/{namespace}", {})
    return {"BAO_ADDR": server.address, "BAO_TOKEN": server.token, "BAO_NAMESPACE": namespace}
