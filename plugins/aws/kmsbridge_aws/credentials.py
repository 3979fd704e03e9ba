"""Makes botocore sessions from a key's settings. Import it on first use only, because it imports botocore."""

from __future__ import annotations

import functools
from typing import Any, Final

import botocore.session
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, Credentials, DeferredRefreshableCredentials
from botocore.exceptions import NoCredentialsError
from botocore.loaders import create_loader

from kmsbridge_aws.settings import Settings
from kmsbridge_aws.transport import Sender

# The library retries, for all drivers alike; retries by botocore would not be counted.
_CONFIG: Final = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "user_agent_extra": "kmsbridge"}
_LAST_MINUTE: Final = 60
"""Credentials that expire within this many seconds are no longer used."""


class HeldCredentials(Credentials):  # type: ignore[misc]
    """The credentials that sign requests. Unlike botocore's own, they are not renewed during a request.

    `fetch` renews them, and `are_ending` and `have_ended` say when that is due.
    """

    def __init__(self, source: Any) -> None:
        super().__init__("", "")
        self._source = source
        self.fetch()

    def fetch(self) -> None:
        """Get credentials from their source, which renews them if that is due. May take long."""
        self._frozen = self._source.get_frozen_credentials()

    def get_frozen_credentials(self) -> Any:
        """Return the credentials of the last `fetch`."""
        return self._frozen

    @property
    def are_ending(self) -> bool:
        """Whether the credentials should be renewed soon."""
        return hasattr(self._source, "refresh_needed") and bool(self._source.refresh_needed())

    @property
    def have_ended(self) -> bool:
        """Whether the credentials are too close to their expiry to be used."""
        return self.are_ending and bool(self._source.refresh_needed(_LAST_MINUTE))

    def load_credentials(self) -> HeldCredentials:
        """Return these credentials: a botocore session calls this on its credential provider."""
        return self


def open_session(settings: Settings) -> tuple[Any, HeldCredentials, Sender]:
    """Return a session, its credentials, and the sender of its requests. Raises botocore's exceptions.

    May take long: finding credentials can involve the instance's metadata service, another program, STS or a
    single sign-on service.
    """
    session = botocore.session.Session(profile=settings.profile)
    # botocore would also use REQUESTS_CA_BUNDLE, which is not meant for AWS.
    verify = settings.ca_file or session.get_config_variable("ca_bundle") or True
    sender = Sender(verify, plain=settings.allow_plain_http)
    session.set_default_client_config(Config(**_CONFIG))
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    session.register("before-send", sender)
    credentials = HeldCredentials(_credentials(session, settings))
    session.register_component("credential_provider", credentials)
    return session, credentials, sender


@functools.cache
def _loader(search_path: str | None) -> Any:
    """Return the loader of botocore's service descriptions, which it reads once for all keys of a process."""
    return create_loader(search_path)


def _credentials(session: Any, settings: Settings) -> Any:
    key = settings.access_key
    if key is None:
        found = session.get_component("credential_provider").load_credentials()
        if found is None:
            raise NoCredentialsError
    else:
        token = key.token.reveal_text() if key.token else None
        found = Credentials(key.id.reveal_text(), key.secret.reveal_text(), token)
    return found if settings.role is None else _assumed(session, found, settings)


def _assumed(session: Any, source: Any, settings: Settings) -> Any:
    """Return the role's credentials, obtained with the credentials of `source` and renewed by botocore."""
    role = settings.role
    assert role is not None
    client = functools.partial(
        session.create_client, region_name=settings.region, endpoint_url=role.endpoint_url
    )
    given = {
        "RoleSessionName": role.session_name,
        "ExternalId": role.external_id,
        "DurationSeconds": role.duration,
    }
    arguments = {name: value for name, value in given.items() if value}
    fetcher = AssumeRoleCredentialFetcher(client, source, role.arn, arguments)
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
