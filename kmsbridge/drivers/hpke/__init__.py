"""The `hpke` driver: public-key recipients (RFC 9180), whose private half is a seed wrapped by a key service."""

from kmsbridge.drivers.hpke.driver import HpkeDriver

__all__ = ["HpkeDriver"]
