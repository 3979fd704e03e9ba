"""Keys of AWS KMS for kmsbridge: `aws-kms://` URIs. botocore is imported when a key is first used."""

from kmsbridge_aws.driver import AwsKmsDriver

__all__ = ["AwsKmsDriver"]
