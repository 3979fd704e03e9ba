"""Names of AWS KMS keys: the forms that a URI may use, and the one form that messages contain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from kmsbridge.errors import ConfigError

SCHEME: Final = "aws-kms"
_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_KEY_ID: Final = re.compile(rf"{_UUID}|mrk-[0-9a-f]{{32}}")
_ALIAS: Final = re.compile(r"alias/(?=.{1,250}\Z)[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")
_PARTITION, _ACCOUNT = r"aws(?:-[a-z]{1,10}){0,3}", r"[0-9]{12}"
REGION: Final = re.compile(r"[a-z]{2,10}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2}")
_ANY_REGION = "*"
_ARN: Final = re.compile(
    rf"arn:(?P<partition>{_PARTITION}):kms:(?P<region>{REGION.pattern}|\*):(?P<account>{_ACCOUNT}):(?P<resource>.+)"
)
_FORMS: Final = "write a key id, alias/NAME, or the ARN of a key or alias after aws-kms://"


@dataclass(frozen=True, slots=True)
class Arn:
    """The ARN of a key or alias: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID` or `...:alias/NAME`."""

    partition: str
    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the ARN in `text`, or None if it is not the ARN of a KMS key or alias."""
        match = _ARN.fullmatch(text)
        if not match or not (_is_key(match["resource"]) or _ALIAS.fullmatch(match["resource"])):
            return None
        return cls(**match.groupdict())

    @property
    def is_key(self) -> bool:
        """Whether this is the ARN of a key, and not of an alias."""
        return _is_key(self.resource)

    @property
    def is_multi_region(self) -> bool:
        """Whether keys with the same id and key material may exist in other regions."""
        return self.resource.startswith("key/mrk-")

    @property
    def key_id(self) -> str:
        """The key id in messages: `aws-kms:` and the ARN.

        Related multi-region keys have the same key material and unwrap each other's wrapped keys. Their id in
        messages is the same, too, with `*` as the region.
        """
        region = _ANY_REGION if self.is_multi_region else self.region
        return f"{SCHEME}:arn:{self.partition}:kms:{region}:{self.account}:{self.resource}"

    def shares_account_with(self, other: Arn) -> bool:
        """Return whether both are of the same partition, region and account."""
        own = (self.partition, self.region, self.account)
        return own == (other.partition, other.region, other.account)

    def __str__(self) -> str:
        return f"arn:{self.partition}:kms:{self.region}:{self.account}:{self.resource}"


def check_name(name: str) -> Arn | None:
    """Return the ARN if `name` is one, else None. Raises `ConfigError` if `name` is not a valid name of a key."""
    arn = Arn.parse(name)
    if arn is not None and arn.region == _ANY_REGION:
        raise ConfigError(
            "the ARN in an aws-kms URI has '*' as its region",
            remedy="write the region of the multi-region key's copy that is to be used",
        )
    if arn is None and name.startswith("arn:"):
        raise ConfigError(
            "the ARN in an aws-kms URI is not the ARN of a KMS key or alias",
            remedy="write arn:aws:kms:REGION:ACCOUNT:key/ID, as DescribeKey shows it",
        )
    if arn is None and not _KEY_ID.fullmatch(name) and not _ALIAS.fullmatch(name):
        raise ConfigError("an aws-kms URI has no valid key name", remedy=_FORMS)
    return arn


def arn_of_key_id(key_id: str) -> Arn | None:
    """Return the ARN in a key id from a message; None if the id is not of an AWS KMS key."""
    scheme, _, rest = key_id.partition(":")
    arn = Arn.parse(rest) if scheme == SCHEME else None
    return arn if arn is not None and arn.is_key else None


def _is_key(resource: str) -> bool:
    kind, _, key = resource.partition("/")
    return kind == "key" and _KEY_ID.fullmatch(key) is not None
