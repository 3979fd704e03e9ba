"""JSON values that cannot be changed in place, since a change in place would not be stored."""

from __future__ import annotations

import copy
from typing import Any, NoReturn


def frozen(value: Any) -> Any:
    """Return a JSON value whose dicts and lists, at every depth, raise `TypeError` where they are changed."""
    if isinstance(value, dict):
        return FrozenDict((key, frozen(each)) for key, each in value.items())
    if isinstance(value, list):
        return FrozenList(map(frozen, value))
    return value


def thawed(value: Any) -> Any:
    """Return a JSON value with ordinary dicts and lists, which are copies."""
    if isinstance(value, dict):
        return {key: thawed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [thawed(each) for each in value]
    return value


def _refuse(*_: Any, **_named: Any) -> NoReturn:
    raise TypeError(
        "the value of an encrypted column cannot be changed in place: assign a changed copy.deepcopy of it"
    )


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed. `copy.deepcopy` gives an ordinary one."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(thawed(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return frozen, (thawed(self),)


class FrozenList(list[Any]):
    """A list that cannot be changed. `copy.deepcopy` gives an ordinary one."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(thawed(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return frozen, (thawed(self),)
