"""Makes botocore sessions from a key's settings. Import it on first use only, because it imports botocore."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import botocore.session
from botocore.config import Config
from botocore.configprovider import ConstantProvider
from botocore.credentials import AssumeRoleCredentialFetcher, Credentials, DeferredRefreshableCredentials
from botocore.exceptions import NoCredentialsError
from botocore.loaders import create_loader

from kmsbridge_aws import mfa
from kmsbridge_aws.settings import Settings
from kmsbridge_aws.transport import Sender

# The library retries, for all drivers alike; retries by botocore would not be counted.
_CONFIG: Final = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "user_agent_extra": "kmsbridge"}
_LAST_MINUTE: Final = 60
"""Credentials that expire within this many seconds are no longer used."""


class HeldCredentials(Credentials):  # type: ignore[misc]
    """The credentials that sign requests. Unlike botocore's own, they are not renewed during a request.

    `fetch` renews them, and `are_ending` and `have_ended` say when that is due. `find` returns their source, from
    botocore's standard chain or the configuration.
    """

    def __init__(self, find: Callable[[], Any]) -> None:
        super().__init__("", "")
        self._find = find
        self.fetch(anew=True)

    def fetch(self, *, anew: bool = False) -> None:
        """Get credentials from their source, which renews them if that is due. May take long.

        With `anew` the source is looked for again: files are read and programs are run again.
        """
        if anew:
            self._source = self._find()
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


def open_session(
    settings: Settings, ask: Callable[[str], str] | None = None
) -> tuple[Any, HeldCredentials, Sender]:
    """Return a session, its credentials, and the sender of its requests. Raises botocore's exceptions.

    `ask` asks a person for the code of an MFA device; without it such a profile raises a `DriverError`. May take long:
    finding credentials can involve the instance's metadata service, another program, STS or a single sign-on service.
    """
    session = _session(settings)
    # botocore would also use REQUESTS_CA_BUNDLE, which is not meant for AWS.
    verify = settings.ca_file or session.get_config_variable("ca_bundle") or True
    sender = Sender(verify, plain=settings.allow_plain_http)
    # Each time in a new session, because one reads the files once.
    credentials = HeldCredentials(lambda: _credentials(_session(settings, sender), settings, ask))
    session = _session(settings, sender)
    session.register_component("credential_provider", credentials)
    return session, credentials, sender


class _Session(botocore.session.Session):  # type: ignore[misc]
    """A session whose clients send their requests by `sender`."""

    sender: Sender | None

    def create_client(self, *arguments: Any, **options: Any) -> Any:
        client = super().create_client(*arguments, **options)
        client._endpoint.http_session = self.sender  # noqa: SLF001 - there is no other way
        return client


def _session(settings: Settings, sender: Sender | None = None) -> Any:
    session = _Session(profile=settings.profile)
    session.sender = sender
    if settings.access_key is not None:
        # AWS_PROFILE names a profile for its credentials, which this key does not use; it need not even exist.
        session.get_component("config_store").set_config_provider("profile", ConstantProvider(None))
    session.set_default_client_config(Config(**_CONFIG))
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@functools.cache
def _loader(search_path: str | None) -> Any:
    """Return the loader of botocore's service descriptions, which it reads once for all keys of a process."""
    return create_loader(search_path)


def _credentials(session: Any, settings: Settings, ask: Callable[[str], str] | None) -> Any:
    key = settings.access_key
    if key is None:
        chain = session.get_component("credential_provider")
        mfa.ask_with(chain.get_provider("assume-role"), ask)
        found = chain.load_credentials()
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
