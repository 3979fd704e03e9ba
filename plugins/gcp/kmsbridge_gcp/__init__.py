"""The Google Cloud KMS driver of kmsbridge, for `gcp-kms://` URIs."""

from kmsbridge_gcp.driver import GcpKmsDriver

__all__ = ["GcpKmsDriver"]
