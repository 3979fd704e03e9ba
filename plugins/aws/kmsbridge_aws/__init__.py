"""The AWS KMS driver of kmsbridge, for `aws-kms://` URIs. botocore is imported when a key is first used."""

from kmsbridge_aws.driver import AwsKmsDriver

__all__ = ["AwsKmsDriver"]
