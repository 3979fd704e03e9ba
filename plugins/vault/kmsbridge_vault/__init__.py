"""The Vault Transit driver of kmsbridge, for `vault-transit://` URIs: keys of HashiCorp Vault and OpenBao."""

from kmsbridge_vault.driver import VaultTransitDriver

__all__ = ["VaultTransitDriver"]
