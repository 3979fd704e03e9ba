"""Keys of the Transit secrets engine of HashiCorp Vault and OpenBao, for kmsbridge."""

from kmsbridge_vault.driver import VaultTransitDriver

__all__ = ["VaultTransitDriver"]
