"""Lets LocalStack 4.12 make keys on Python 3.11: it calls `uuid.uuid5` with bytes, which Python accepts since 3.12."""

import hashlib
import sys
import uuid

if sys.version_info < (3, 12):
    _of_text = uuid.uuid5

    def _uuid5(namespace: uuid.UUID, name: str | bytes) -> uuid.UUID:
        """Return the UUID of RFC 4122, section 4.3, as Python 3.12 does."""
        if isinstance(name, str):
            return _of_text(namespace, name)
        digest = hashlib.sha1(namespace.bytes + name, usedforsecurity=False).digest()
        return uuid.UUID(bytes=digest[:16], version=5)

    uuid.uuid5 = _uuid5
