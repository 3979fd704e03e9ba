"""Names of AWS KMS keys: what a URI may hold, and the one form that goes into messages."""

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
    """`arn:PARTITION:kms:REGION:ACCOUNT:key/ID` or `...:alias/NAME`."""

    partition: str
    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what is no ARN of a KMS key or alias."""
        match = _ARN.fullmatch(text)
        if not match or not (_is_key(match["resource"]) or _ALIAS.fullmatch(match["resource"])):
            return None
        return cls(**match.groupdict())

    @property
    def is_key(self) -> bool:
        """False for an alias."""
        return _is_key(self.resource)

    @property
    def is_multi_region(self) -> bool:
        """Whether keys of the same id and key material may stand in other regions."""
        return self.resource.startswith("key/mrk-")

    @property
    def key_id(self) -> str:
        """What goes into messages: `aws-kms:` and the ARN.

        Related multi-region keys have one key material, and what one wrapped any other unwraps; so that
        a message tells them by one name, `*` stands there for the region.
        """
        region = _ANY_REGION if self.is_multi_region else self.region
        return f"{SCHEME}:arn:{self.partition}:kms:{region}:{self.account}:{self.resource}"

    def in_partition_of(self, other: Arn) -> bool:
        """Whether one service, of one region and account, holds both keys."""
        mine = (self.partition, self.region, self.account)
        return mine == (other.partition, other.region, other.account)

    def __str__(self) -> str:
        return f"arn:{self.partition}:kms:{self.region}:{self.account}:{self.resource}"


def check_name(name: str) -> Arn | None:
    """The ARN, where `name` is one; raises `ConfigError` for what names no key that can be."""
    arn = Arn.parse(name)
    if arn is not None and arn.region == _ANY_REGION:
        raise ConfigError(
            "an AWS key's ARN has '*' for its region",
            remedy="write the region whose copy of the multi-region key is to be used",
        )
    if arn is None and name.startswith("arn:"):
        raise ConfigError(
            "an aws-kms URI has an ARN that is none of a KMS key or alias",
            remedy="write arn:aws:kms:REGION:ACCOUNT:key/ID, as DescribeKey shows it",
        )
    if arn is None and not _KEY_ID.fullmatch(name) and not _ALIAS.fullmatch(name):
        raise ConfigError("an aws-kms URI names no key that can be", remedy=_FORMS)
    return arn


def arn_of_key_id(key_id: str) -> Arn | None:
    """The ARN in a key id from a message; None for another provider's key id."""
    scheme, _, rest = key_id.partition(":")
    arn = Arn.parse(rest) if scheme == SCHEME else None
    return arn if arn is not None and arn.is_key else None


def _is_key(resource: str) -> bool:
    kind, _, key = resource.partition("/")
    return kind == "key" and _KEY_ID.fullmatch(key) is not None
