"""Keys of Google Cloud KMS, for kmsbridge."""

from kmsbridge_gcp.driver import GcpKmsDriver

__all__ = ["GcpKmsDriver"]
