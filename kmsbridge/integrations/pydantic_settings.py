"""Settings that are armored messages in the environment, a dotenv file or a file of secrets.

    class Settings(BaseSettings):
        db_password: Annotated[SecretStr, Encrypted(context={"service": "billing"})]

Needs the extra `pydantic`. It works in every model of pydantic, and so in nested ones.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Final, Union, cast, get_args, get_origin

from pydantic import GetCoreSchemaHandler, Secret, SecretBytes, SecretStr, ValidationError
from pydantic_core import CoreSchema, core_schema

from kmsbridge import Decryptor, EnvelopeCipher, KmsBridgeError, SecretValue, shared
from kmsbridge.cipher.aad import Aad
from kmsbridge.datakeys import Pairs
from kmsbridge.errors import discreet
from kmsbridge.integrations.hidden_errors import detail, error, errors

_PREFIX: Final = "kmsb1_"
_TYPES: Final = (SecretStr, SecretBytes, Secret, SecretValue)


class Encrypted:
    """Marks a field, by `Annotated`, whose value is an armored message, which is decrypted when it is validated.

    The field's type is `SecretStr`, `SecretBytes`, `Secret[...]` or `SecretValue`, or one of these or None;
    any other raises `TypeError` when the class is made, since it would show the value. `context` and `aad` are
    those that the message was encrypted with. A value that is no armored message is refused, unless
    `allow_plain` is true, and an object of the field's type is taken as it is.

    `cipher` returns the `Decryptor` or `EnvelopeCipher` to use, and is called for each value. Without it, it is
    the process's `shared(cls=Decryptor)`.

    A value that cannot be decrypted is an error of pydantic's `ValidationError` with the field's place, the type
    `decryption`, what this library's error says, and that error's class in `ctx["error"]`. The input of every
    error of the field is replaced by "(hidden)".
    """

    def __init__(
        self,
        *,
        context: Pairs = None,
        aad: Aad = b"",
        allow_plain: bool = False,
        cipher: Callable[[], Decryptor | EnvelopeCipher] | None = None,
    ) -> None:
        self.context, self.aad = context, aad
        self.allow_plain = allow_plain
        self.cipher = cipher or _shared_decryptor

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kind = _secret_type(source)

        @discreet
        def validate(value: Any, inner: core_schema.ValidatorFunctionWrapHandler) -> Any:
            if value is not None and not isinstance(value, kind):
                value = self._opened(value, kind)
            try:
                return inner(value)
            except ValidationError as failure:
                hidden = _without_values(failure)
            raise hidden

        return core_schema.no_info_wrap_validator_function(validate, handler(source))

    def _opened(self, value: Any, kind: type[Any]) -> Any:
        """Return what is in an armored message, as a secret that pydantic takes for a field of this type."""
        armored = isinstance(value, str) and value.strip().startswith(_PREFIX)
        if not armored and not (self.allow_plain and isinstance(value, str)):
            raise error(
                "plaintext", "the value is not encrypted: give an armored message, which begins with 'kmsb1_'"
            )
        try:
            secret = self._decrypted(value) if armored else SecretValue.of_text(value)
        except KmsBridgeError as failure:
            refusal = error("decryption", str(failure), type(failure).__name__)
        else:
            return _as_field(secret, kind)
        raise refusal

    def _decrypted(self, message: str) -> SecretValue:
        return self.cipher().decrypt_secret(message, context=self.context, aad=self.aad)


def _as_field(secret: SecretValue, kind: type[Any]) -> Any:
    if kind is SecretValue:
        return secret
    with secret:
        try:
            return secret.use(SecretBytes) if kind is SecretBytes else secret.use_text(kind)
        except ValueError:
            refusal = error("decryption", "the payload is not text: declare it as SecretBytes")
    raise refusal


def _secret_type(source: Any) -> type[Any]:
    """Return the class of secrets that a field's type names, alone or beside None. Raises `TypeError`."""
    members = get_args(source) if get_origin(source) in (Union, UnionType) else (source,)
    kinds = [get_origin(each) or each for each in members if each is not NoneType]
    if len(kinds) != 1 or kinds[0] not in _TYPES:
        raise TypeError(
            "an Encrypted field must be SecretStr, SecretBytes, Secret[...] or SecretValue, or one of these or None: "
            "another type would show the plaintext"
        )
    return cast("type[Any]", kinds[0])


def _without_values(failure: ValidationError) -> ValidationError:
    """Return the same errors without what was validated, which pydantic's texts can quote too."""
    found = failure.errors(include_url=False, include_context=False, include_input=False)
    return errors(
        [detail(each["type"], "the decrypted value is not valid", place=each["loc"]) for each in found]
    )


def _shared_decryptor() -> Decryptor:
    return shared(cls=Decryptor)
