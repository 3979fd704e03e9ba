"""The error of a use that an encrypted column cannot have."""

from __future__ import annotations

from sqlalchemy.exc import DontWrapMixin

from kmsbridge import KmsBridgeError


class EncryptedColumnError(KmsBridgeError, DontWrapMixin):
    """An encrypted column was used in a way that would store a plaintext, lose a value, or compare messages.

    SQLAlchemy does not wrap it, since its own errors show a statement's parameters.
    """
