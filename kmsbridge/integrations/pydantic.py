"""Fields of pydantic models that leave the process encrypted: in queues, caches, documents, files.

    class Signup(EncryptedModel):
        id: str
        phone: Annotated[Encrypted[str], Label("signups.phone")]

    place = bind(cipher, context={"tenant": "acme"}, key=(signup.id,))
    stored = signup.model_dump_json(context=place)
    signup = Signup.model_validate_json(stored, context=place)

Needs the extra `pydantic`. For settings that are encrypted see `kmsbridge.integrations.pydantic_settings`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Generic,
    NamedTuple,
    NoReturn,
    TypeVar,
    get_args,
    get_origin,
)

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    SerializationInfo,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from kmsbridge import Decryptor, Encryptor, EnvelopeCipher, KmsBridgeError, RoleError
from kmsbridge.cipher.arguments import text_to_bytes
from kmsbridge.datakeys import Pairs
from kmsbridge.errors import discreet
from kmsbridge.integrations.hidden_errors import detail, error, errors
from kmsbridge.message import armor

if TYPE_CHECKING:
    from uuid import UUID

T = TypeVar("T")
Info = core_schema.ValidationInfo

MASK: Final = "**********"
"""The text in place of a value in JSON where nothing says how to encrypt it. It is refused when it is loaded."""
_NAME: Final = "kmsbridge"
_PREFIX: Final = "kmsb1_"


class Encrypted(Generic[T]):
    """A value that shows in no repr, dump or pickle; or the message of one that was not decrypted.

    A field of this type has a `Label`. `Encrypted(value)` holds a value, and so does a field that was given one, or
    a message that could be decrypted. It cannot be changed.
    """

    __slots__ = ("_message", "_value")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: T) -> None:
        self._value = value
        self._message = ""

    @classmethod
    def of_message(cls, message: str) -> Encrypted[T]:
        """Return one that holds an armored message, and no value."""
        made = cls.__new__(cls)
        made._message = message  # noqa: SLF001 - of this class
        return made

    @property
    def message(self) -> str:
        """The armored message, of a field that was loaded and not decrypted; else empty."""
        return self._message

    def reveal(self) -> T:
        """Return the value. Raises `RoleError` where there is a message that was not decrypted."""
        if self._message:
            raise RoleError(
                "the field was loaded without being decrypted",
                remedy="validate the model with context=bind(decryptor, ...)",
            )
        return self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encrypted):
            return NotImplemented
        if self._message or other._message:
            return self._message == other._message
        return bool(self._value == other._value)

    def __repr__(self) -> str:
        return "Encrypted(...)"

    def __copy__(self) -> Encrypted[T]:
        return self

    def __deepcopy__(self, _memo: object) -> Encrypted[T]:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Encrypted value cannot be pickled: dump its model with context=bind(cipher, ...)")

    __getstate__ = __reduce__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        raise TypeError('an Encrypted field needs a label: Annotated[Encrypted[str], Label("users.phone")]')


class EncryptedModel(BaseModel):
    """A model whose errors show no input, of any field: pydantic's own show all of it where one field is missing.

    Defaults are validated. A model that has such a model as a field must be one too.
    """

    model_config = ConfigDict(hide_input_in_errors=True, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def hide_input_of_errors(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        """Validate, and replace the input in what pydantic raises."""
        try:
            return handler(data)
        except ValidationError as failure:
            found = failure.errors(include_url=False, include_input=False)
            hidden = errors([detail(each["type"], each["msg"], _cause(each), each["loc"]) for each in found])
        del data
        raise hidden


class Bound(NamedTuple):
    """A cipher, and what the messages of one model are bound to."""

    cipher: Encryptor | Decryptor | EnvelopeCipher
    context: Pairs
    key: tuple[str | int | bytes | UUID, ...]

    def aad(self, label: str) -> tuple[str | int | bytes | UUID, ...]:
        """Return the aad of the field with this label."""
        return (label, *self.key)


def bind(
    cipher: Encryptor | Decryptor | EnvelopeCipher,
    *,
    context: Pairs = None,
    key: tuple[str | int | bytes | UUID, ...],
) -> dict[str, Any]:
    """Return pydantic's `context` for dumping or validating one model, with what its messages are bound to.

    `context` is the encryption context. `key` identifies the model among its kind, as a primary key does: the aad of
    a field is its label and the key. Dumping needs a cipher that encrypts. With one that decrypts, validating
    decrypts, and refuses values that are not encrypted; with an `Encryptor` messages stay messages. Merge it with a
    context of your own.
    """
    if not isinstance(key, tuple):
        raise TypeError(f"key must be a tuple, not {type(key).__name__}: (id,)")
    return {_NAME: Bound(cipher, context, key)}


class Label:
    """Marks a field of type `Encrypted[...]`, by `Annotated`, with the label that its messages are bound to.

    The label is unique among all fields, such as `users.phone`, and does not change when the field is renamed. Raises
    `TypeError`, when the class is made, for a field of another type.
    """

    def __init__(self, label: str) -> None:
        self.label = label

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if get_origin(source) is not Encrypted:
            raise TypeError(
                "Label is for one field of type Encrypted[...]: Annotated[Encrypted[str], Label(...)] | None"
            )
        (kind,) = get_args(source)
        field = _Field(self.label, _codec(kind))
        return core_schema.with_info_wrap_validator_function(
            field.validate,
            handler.generate_schema(kind),
            serialization=core_schema.plain_serializer_function_ser_schema(field.serialize, info_arg=True),
        )


class _Codec(NamedTuple):
    """Functions that write a value as bytes, and read it from them."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, Callable[[Any], Any]], Any]


class _Field(NamedTuple):
    """A field that is encrypted: its label, and how its values are written."""

    label: str
    codec: _Codec

    @discreet
    def validate(
        self, value: Any, inner: core_schema.ValidatorFunctionWrapHandler, info: Info
    ) -> Encrypted[Any]:
        bound = _bound(info.context)
        if isinstance(value, Encrypted):
            if value.message:
                return value
            value = value.reveal()
        elif isinstance(value, str) and value.strip().startswith(_PREFIX):
            return self._loaded(value.strip(), inner, bound)
        elif value == MASK:
            raise error("masked", "the value is a mask: the model was dumped without context=bind(...)")
        elif bound is not None and not isinstance(bound.cipher, Encryptor):
            raise error(
                "plaintext", "the value is not encrypted: give an armored message, which begins with 'kmsb1_'"
            )
        try:
            return Encrypted(inner(value))
        except ValidationError as failure:
            hidden = _without_values(failure)
        raise hidden

    @discreet
    def serialize(self, value: Any, info: SerializationInfo) -> Any:
        if not isinstance(value, Encrypted):
            raise TypeError(
                "an Encrypted field holds another object: validate assignments, copies and defaults"
            )
        bound = _bound(info.context)
        if value.message:
            return value.message
        if bound is None:
            return MASK if info.mode_is_json() else value
        if isinstance(bound.cipher, Decryptor):
            raise RoleError(
                "a Decryptor cannot encrypt the model", remedy="bind an Encryptor or EnvelopeCipher"
            )
        return armor(
            bound.cipher.encrypt(
                self.codec.encode(value.reveal()), context=bound.context, aad=bound.aad(self.label)
            )
        )

    def _loaded(
        self, message: str, inner: core_schema.ValidatorFunctionWrapHandler, bound: Bound | None
    ) -> Encrypted[Any]:
        if bound is None or isinstance(bound.cipher, Encryptor):
            return Encrypted.of_message(message)
        try:
            with bound.cipher.decrypt_secret(
                message, context=bound.context, aad=bound.aad(self.label)
            ) as secret:
                return Encrypted(self.codec.decode(secret.reveal(), inner))
        except KmsBridgeError as failure:
            hidden = error("decryption", str(failure), type(failure).__name__)
        except ValidationError as failure:
            hidden = _without_values(failure)
        except UnicodeDecodeError:
            hidden = error("decryption", "the payload is not text")
        raise hidden


def _codec(kind: Any) -> _Codec:
    """Return how values of a type are written: text and bytes as they are, as `encrypt_text` does, others as JSON."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if plain is str:
        return _Codec(text_to_bytes, lambda data, inner: inner(data.decode()))
    if plain is bytes:
        return _Codec(bytes, lambda data, inner: inner(data))
    adapter = functools.cache(
        lambda: TypeAdapter[Any](kind)
    )  # when it is used: the type may be defined later
    return _Codec(
        lambda value: adapter().dump_json(value), lambda data, _inner: adapter().validate_json(data)
    )


def _bound(context: Any) -> Bound | None:
    found = context.get(_NAME) if isinstance(context, dict) else None
    return found if isinstance(found, Bound) else None


def _cause(found: ErrorDetails) -> str:
    """Return the class of what caused an error, where `detail` has noted one."""
    cause = found.get("ctx", {}).get("error")
    return cause if isinstance(cause, str) else "ValueError"


def _without_values(failure: ValidationError) -> ValidationError:
    """Return the first error without its text and its place within the value, which can be parts of it."""
    (first, *_) = failure.errors(include_url=False, include_context=False, include_input=False)
    return error(first["type"], "the value is not valid")
