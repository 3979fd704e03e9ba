"""Validation errors of pydantic that quote neither the input nor what it was decrypted to."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

HIDDEN: Final = "(hidden)"
"""The text in place of the input."""


def error(kind: str, problem: str, cause: str = "ValueError") -> ValidationError:
    """Return one error of a type and a text; `cause` is the class of what caused it, in `ctx["error"]`."""
    return errors([detail(kind, problem, cause)])


def errors(details: list[InitErrorDetails]) -> ValidationError:
    """Return an error of these details, which shows no input."""
    return ValidationError.from_exception_data("Encrypted", details, hide_input=True)


def detail(
    kind: str, problem: str, cause: str = "ValueError", place: tuple[int | str, ...] = ()
) -> InitErrorDetails:
    """Return one error, of a type, a text, the class of what caused it, and a place within the field."""
    context = {"problem": problem, "error": cause}
    return InitErrorDetails(type=PydanticCustomError(kind, "{problem}", context), loc=place, input=HIDDEN)
