"""Fields of models that are encrypted in every dump, and errors that show no value of any field."""

# mypy: disable-error-code="call-arg, valid-type"

import copy
import datetime
import json
import pickle
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticSerializationError

from kmsbridge import Decryptor, Encryptor, RoleError
from kmsbridge.integrations.pydantic import MASK, Encrypted, EncryptedModel, Label, bind
from tests.secrets.canaries import PLAINTEXT, assert_clean, assert_discreet, failure_of, reachable

ACME = {"tenant": "acme"}


class Card(EncryptedModel):
    number: Annotated[Encrypted[Annotated[str, Field(pattern=r"^\d+$")]], Label("cards.number")]
    note: Annotated[Encrypted[str], Label("cards.note")] | None = None


class Customer(EncryptedModel):
    id: int
    phone: Annotated[Encrypted[str], Label("customers.phone")]
    born: Annotated[Encrypted[datetime.date], Label("customers.born")] = Encrypted(datetime.date(1970, 1, 2))
    photo: Annotated[Encrypted[bytes], Label("customers.photo")] = Encrypted(b"\xff")
    tags: Annotated[Encrypted[dict[str, list[int]]], Label("customers.tags")] = Encrypted({"a": [1]})
    cards: list[Card] = []


@pytest.fixture
def place(cipher):
    return bind(cipher, context=ACME, key=(7,))


@pytest.fixture
def customer():
    return Customer(
        id=7, phone=PLAINTEXT.text(), tags={PLAINTEXT.text(): [1]}, cards=[Card(number="4111", note="x")]
    )


def refusal(call, *, decrypted=False):
    """The errors of what `call()` raises, by their place, once no form of it shows a canary.

    What was decrypted is in no frame either; what was passed in is in those of the caller, and of pydantic.
    """
    error = failure_of(call)
    assert isinstance(error, ValidationError)
    assert error.__cause__ is error.__context__ is None
    if decrypted:
        assert_discreet(error)
    for shown in (str(error), repr(error.errors()), error.json()):
        assert_clean(shown, "a ValidationError")
    return {".".join(map(str, each["loc"])): each for each in error.errors()}


@pytest.mark.parametrize("mode", ("json", "python"))
def test_what_is_dumped_is_encrypted_and_comes_back(customer, place, mode):
    stored = customer.model_dump(mode=mode, context=place)
    assert_clean(repr(stored), "the dump")
    messages = [stored["phone"], stored["born"], stored["photo"], stored["cards"][0]["number"]]
    assert all(message.startswith("kmsb1_") for message in messages)
    loaded = Customer.model_validate(stored, context=place)
    assert loaded == customer
    assert loaded.phone.reveal() == PLAINTEXT.text()
    assert loaded.born.reveal() == datetime.date(1970, 1, 2)
    assert loaded.photo.reveal() == b"\xff"
    assert loaded.cards[0].number.reveal() == "4111"
    assert Customer.model_validate_json(customer.model_dump_json(context=place), context=place) == customer


def test_text_is_what_decrypt_text_reads(customer, place, cipher):
    """With the label and the key as aad, as every integration has it."""
    message = customer.model_dump(context=place)["phone"]
    assert cipher.decrypt_text(message, context=ACME, aad=("customers.phone", 7)) == PLAINTEXT.text()
    again = cipher.encrypt_text("other", context=ACME, aad=("customers.phone", 7))
    loaded = Customer.model_validate({**customer.model_dump(context=place), "phone": again}, context=place)
    assert loaded.phone.reveal() == "other"


def test_nothing_shows_a_value(customer):
    for shown in (repr(customer), str(customer), f"{customer.phone}", repr(customer.model_dump())):
        assert_clean(shown, "a model")
    assert json.loads(customer.model_dump_json())["phone"] == MASK
    for leave in (pickle.dumps, json.dumps):
        with pytest.raises(TypeError):
            leave(customer.phone)
    with pytest.raises(TypeError):
        vars(customer.phone)
    assert copy.deepcopy(customer) == customer == customer.model_copy(deep=True)


def test_a_mask_is_no_value(customer):
    """Else it would be stored in place of the value."""
    stored = customer.model_dump_json()
    for context in ({}, None):
        found = refusal(lambda context=context: Customer.model_validate_json(stored, context=context))
        assert found["phone"]["type"] == found["cards.0.number"]["type"] == "masked"


@pytest.mark.parametrize("place_of", ({"context": ACME, "key": (8,)}, {"context": None, "key": (7,)}))
def test_a_message_of_another_place_is_refused(customer, place, cipher, place_of):
    stored = customer.model_dump(context=place)
    found = refusal(lambda: Customer.model_validate(stored, context=bind(cipher, **place_of)))
    assert found["phone"]["type"] == "decryption"
    assert found["phone"]["ctx"]["error"] == "AuthenticationError"


def test_a_message_of_another_field_is_refused(customer, place):
    stored = customer.model_dump(context=place)
    stored["phone"] = stored["born"]
    found = refusal(lambda: Customer.model_validate(stored, context=place))
    assert found["phone"]["ctx"]["error"] == "AuthenticationError"


def test_plaintext_is_refused_where_messages_are_read(customer, place):
    """Who can write the storage could else put any value there."""
    stored = {**customer.model_dump(context=place), "phone": PLAINTEXT.text()}
    assert refusal(lambda: Customer.model_validate(stored, context=place))["phone"]["type"] == "plaintext"


def test_a_host_that_only_encrypts_passes_messages_on(customer, place, service):
    """It reads plaintext from a form, and messages from the storage, which it cannot decrypt."""
    stored = customer.model_dump(context=place)
    with Encryptor.from_uri("fake:app") as encryptor:
        writing = bind(encryptor, context=ACME, key=(7,))
        for context in (writing, None):
            loaded = Customer.model_validate(stored, context=context)
            assert loaded.phone.message == stored["phone"]
            error = failure_of(loaded.phone.reveal)
            assert isinstance(error, RoleError)
            assert loaded.model_dump(context=writing) == loaded.model_dump(mode="json") == stored
        form = Customer.model_validate({"id": 7, "phone": "+1 555 0100"}, context=writing)
        assert Customer.model_validate(form.model_dump(context=writing), context=place).phone == Encrypted(
            "+1 555 0100"
        )


def test_a_host_that_only_decrypts_dumps_no_new_messages(customer, service):
    with Decryptor.from_uri("fake:app") as decryptor:
        error = failure_of(lambda: customer.model_dump(context=bind(decryptor, key=(7,))))
        assert isinstance(error, PydanticSerializationError)
        assert "Decryptor" in str(error)
        assert_discreet(error)


@pytest.mark.parametrize(
    "data",
    (
        {"phone": PLAINTEXT.text()},
        {"id": PLAINTEXT.text(), "phone": PLAINTEXT.text()},
        {"id": 7, "phone": {"inner": PLAINTEXT.text()}},
        {"id": 7, "phone": "x", "born": PLAINTEXT.text()},
        {"id": 7, "phone": "x", "tags": {PLAINTEXT.text(): PLAINTEXT.text()}},
        {"id": 7, "phone": "x", "cards": [{"number": PLAINTEXT.text()}]},
        {"id": 7, "phone": "x", "cards": [{"note": PLAINTEXT.text()}]},
        {"id": 7, "phone": "x", "cards": [PLAINTEXT.text()]},
        PLAINTEXT.text(),
    ),
    ids=range(9),
)
@pytest.mark.parametrize(
    "how", (Customer.model_validate, lambda data: Customer.model_validate_json(json.dumps(data)))
)
def test_an_error_names_the_field_and_shows_no_value(data, how):
    """Where a field is missing, pydantic's own error shows all others."""
    found = refusal(lambda: how(data))
    assert all(each["input"] == "(hidden)" for each in found.values())
    assert len(found) == 1
    assert not any(PLAINTEXT.is_in(place) for place in found)


def test_a_missing_field_is_told_as_pydantic_tells_it():
    (found,) = refusal(lambda: Customer(phone=PLAINTEXT.text())).values()
    assert (found["type"], found["msg"], found["loc"]) == ("missing", "Field required", ("id",))


def test_a_decrypted_value_that_does_not_fit_is_not_shown(cipher, place):
    values = {
        "phone": cipher.encrypt_text("x", context=ACME, aad=("customers.phone", 7)),
        "born": cipher.encrypt_text(json.dumps(PLAINTEXT.text()), context=ACME, aad=("customers.born", 7)),
        "tags": cipher.encrypt_text(PLAINTEXT.text(), context=ACME, aad=("customers.tags", 7)),
    }
    found = refusal(lambda: Customer.model_validate({"id": 7, **values}, context=place), decrypted=True)
    assert set(found) == {"born", "tags"}


def test_a_payload_that_is_no_text_is_told(cipher, place):
    from kmsbridge.message import armor

    message = armor(cipher.encrypt(b"\xff" + PLAINTEXT.reveal(), context=ACME, aad=("customers.phone", 7)))
    found = refusal(
        lambda: Customer.model_validate({"id": 7, "phone": message}, context=place), decrypted=True
    )
    assert found["phone"]["msg"] == "the payload is not text"


def test_a_validator_that_quotes_the_value_is_not_quoted():
    class Quoting(EncryptedModel):
        phone: Annotated[Encrypted[str], Label("x")]

        @field_validator("phone", mode="before")
        @classmethod
        def check(cls, value: Any) -> Any:
            return value

    assert refusal(lambda: Quoting(phone=[PLAINTEXT.text()]))["phone"]["msg"] == "the value is not valid"


def test_a_default_is_validated():
    with pytest.raises(ValidationError):
        type(
            "Bad",
            (EncryptedModel,),
            {
                "__annotations__": {"phone": Annotated[Encrypted[int], Label("x")]},
                "phone": "no number",
                "__module__": __name__,
            },
        )()

    class Good(EncryptedModel):
        phone: Annotated[Encrypted[str], Label("x")] = "plain"

    assert isinstance(Good().phone, Encrypted)


def test_what_escaped_validation_is_not_dumped():
    class Lax(BaseModel):
        phone: Annotated[Encrypted[str], Label("x")] = PLAINTEXT.text()

    for model in (Lax(), Lax.model_construct(phone=PLAINTEXT.text())):
        for dump in (model.model_dump, model.model_dump_json):
            error = failure_of(dump)
            assert isinstance(error, PydanticSerializationError)
            assert_clean(str(error), "the error")


def test_text_that_cannot_be_written_as_utf8_is_not_quoted(place):
    """Python's own error holds all of it."""
    card = Card(number="1", note=Encrypted(PLAINTEXT.text() + "\ud800"))
    for dump in (card.model_dump, card.model_dump_json):
        error = failure_of(lambda dump=dump: dump(context=place))
        assert "surrogates" in str(error)
        for each in reachable(error):
            assert_clean(ascii(each), "the error")
            assert not isinstance(each, UnicodeError)


@pytest.mark.parametrize(
    "annotation",
    (
        Encrypted[str],
        Annotated[str, Label("x")],
        Annotated[Encrypted[str] | None, Label("x")],
        Annotated[list[Encrypted[str]], Label("x")],
        list[Encrypted[str]],
    ),
    ids=range(5),
)
def test_a_field_without_its_own_label_is_refused_when_the_class_is_made(annotation):
    with pytest.raises(TypeError, match="Label"):
        type("Model", (EncryptedModel,), {"__annotations__": {"x": annotation}, "__module__": __name__})


@pytest.mark.parametrize("key", (7, "7", None, ["7"]))
def test_a_key_is_a_tuple(cipher, key):
    with pytest.raises(TypeError, match=r"\(id,\)"):
        bind(cipher, key=key)


def test_the_json_schema_is_that_of_the_value():
    """As a web framework shows it."""
    schema = Card.model_json_schema()["properties"]
    assert schema["number"] == {"pattern": r"^\d+$", "title": "Number", "type": "string"}
    assert Card.model_json_schema(mode="serialization")


def test_a_context_of_ones_own_is_kept(cipher, place, customer):
    stored = customer.model_dump(context={"mine": 1, **place})
    assert Customer.model_validate(stored, context={"mine": 1, **place}) == customer


def test_equal_values_are_equal():
    one, other = Encrypted("x"), Encrypted("y")
    assert one == Encrypted("x")
    assert one != other
    assert one != "x"
    assert Encrypted.of_message("kmsb1_x") == Encrypted.of_message("kmsb1_x") != Encrypted("kmsb1_x")
    with pytest.raises(TypeError):
        hash(one)


def test_it_works_without_a_model(place):
    adapter = TypeAdapter(Annotated[Encrypted[str], Label("x")])
    stored = adapter.dump_python(Encrypted("v"), context=place)
    assert adapter.validate_python(stored, context=place).reveal() == "v"


def test_the_check_can_fail():
    """Where a field is missing, a model of pydantic's own shows the others."""

    class Plain(BaseModel):
        id: int
        phone: Annotated[Encrypted[str], Label("x")]

    with pytest.raises(AssertionError, match="plaintext in"):
        refusal(lambda: Plain(phone=PLAINTEXT.text()))
