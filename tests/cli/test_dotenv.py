"""Dotenv files are read as python-dotenv reads them without expansion; what it would pass over is refused."""

from __future__ import annotations

import io
import string

import pytest
from dotenv import dotenv_values

from kmsbridge.cli import dotenv
from kmsbridge.cli.exits import CommandError

UNDERSTOOD = (
    "A=1",
    "A = 1 ",
    "  export  A = x y  # comment",
    "A=x#y",
    "A=#x",
    "A=",
    "A= ",
    "A='x # y' # comment",
    'A="x # y"# comment',
    r"A='a\'b\\c\n'",
    r'A="x\ny\"z\'\t\q\\n"',
    "A=''",
    'A=""',
    "A=x'y'",
    'A=x"y',
    'A="$B ${C}"',
    "A=$B",
    r"A=\n \# x",
    "A=a=b==",
    "A.b-c=1",
    "export=1",
    "A=1\r",
    "A='1'\r",
    "A=kmsb1_abc-_",
    "A=für\t# comment",
    "# comment",
    " # comment",
    "",
    " \t",
)


@pytest.mark.parametrize("line", UNDERSTOOD)
def test_a_line_means_what_it_means_to_python_dotenv(tmp_path, line):
    path = tmp_path / ".env"
    path.write_bytes(f"{line}\n".encode())
    expected = dict(dotenv_values(stream=io.StringIO(f"{line}\n"), interpolate=False))
    assert {name: entry.value for name, entry in dotenv.read(str(path)).items()} == expected


def test_the_last_value_of_a_name_counts_with_its_line(tmp_path):
    path = tmp_path / ".env"
    path.write_bytes("\N{BOM}A=1\n\nB=2\nA=3".encode())
    entries = dotenv.read(str(path))
    assert {name: (entry.value, entry.line) for name, entry in entries.items()} == {
        "A": ("3", 4),
        "B": ("2", 3),
    }
    assert "value" not in repr(entries)


def test_bytes_that_are_no_text_are_kept(tmp_path):
    path = tmp_path / ".env"
    path.write_bytes(b"A=\xff\xfe")
    assert dotenv.read(str(path))["A"].value.encode("utf-8", "surrogateescape") == b"\xff\xfe"


@pytest.mark.parametrize(
    "line",
    (
        "canary",
        "=canary",
        "A canary=1",
        "1canary=1",
        "'A'=canary",
        "A='canary",
        'A="canary',
        "A='canary'y",
        'A="canary" y',
        r"A='canary\'",
        "A=canary\0",
    ),
)
def test_what_is_no_variable_is_refused_by_its_line_alone(tmp_path, line):
    """A value with a missing quote, or a name that no shell has, is a mistake; nothing of it is shown."""
    path = tmp_path / ".env"
    path.write_bytes(f"A=1\n{line}\nB=2\n".encode())
    with pytest.raises(CommandError) as caught:
        dotenv.read(str(path))
    assert f"{path}: line 2 " in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("start", ("", "A=", "A='", 'A="', "A"))
def test_no_line_takes_time_with_the_square_of_its_length(tmp_path, start):
    """Whatever it consists of: the longest file is read at once."""
    path = tmp_path / ".env"
    for noise in (" ", "\\", "'", '"', "#", "=", "\t#"):
        path.write_text(start + noise * 500_000)
        try:
            dotenv.read(str(path))
        except CommandError as refused:
            assert "line 1 " in str(refused)


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / ".env"
    with pytest.raises(CommandError, match="no such file"):
        dotenv.read(str(path))
    path.write_bytes(b"A=" + string.ascii_letters.encode() * 25_000)
    with pytest.raises(CommandError, match="larger than 1 MiB"):
        dotenv.read(str(path))
