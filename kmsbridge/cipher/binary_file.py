"""The base class of the files that this library returns."""

from __future__ import annotations

import io
from typing import BinaryIO, NoReturn


class BinaryFile(io.BufferedIOBase, BinaryIO):
    """A binary file of this library, also in the eyes of type checkers, which know files by `BinaryIO`."""

    def __init__(self, name: str, mode: str) -> None:
        super().__init__()
        self._name, self._mode = name, mode

    @property
    def name(self) -> str:
        """The path or the name of the file that is read or written; empty where it has none."""
        return self._name

    @property
    def mode(self) -> str:
        """`rb` for a file to read, `wb` for one to write."""
        return self._mode

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be pickled or copied: it holds a key")

    def _check_not_closed(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed message")


def name_of(file: object) -> str:
    """Return the name of a file as its `name` has it; empty where that is no text."""
    name = getattr(file, "name", "")
    return name if isinstance(name, str) else ""
