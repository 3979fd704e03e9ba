"""Blind indexes are for ever what the frozen cases say, in Python and in JavaScript."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from kmsbridge import SecretValue
from kmsbridge.blindindex import BlindIndex
from kmsbridge.blindindex.index import FULL, LEAST
from kmsbridge.blindindex.keys import AAD, LENGTH
from kmsbridge.blindindex.normalizers import _BY_NAME, _SEPARATORS
from tests.vectors import make_blind_index as make
from tests.vectors.test_javascript import NODE, OLDEST

CASES = json.loads(make.FILE.read_text())
PAGE = (Path(__file__).parents[2] / "docs/reference/blind-index.md").read_text()


def test_the_file_is_as_it_was_written():
    """Cases may be added by the generator; this is changed with them, and no line that is there ever is."""
    assert (
        hashlib.sha256(make.FILE.read_bytes()).hexdigest()
        == "8f3dbe8b7e1bb67c3dc1f9006e0e6c306fc7e93adc56e6a8343dad8a3071be09"
    )
    assert all(case in CASES for case in make.cases())


@pytest.mark.parametrize("case", CASES, ids=[f"{each['normalizer']}-{n}" for n, each in enumerate(CASES)])
def test_the_library_comes_to_every_outcome(case):
    key = SecretValue(bytes.fromhex(case["key_hex"]))
    index = BlindIndex(case["label"], keys=[key], normalize=case["normalizer"], bits=case["bits"])
    if case["outcome"] == "refused":
        with pytest.raises(ValueError, match="the value"):
            index.of(case["value"], tenant=case["tenant"])
        return
    assert index.normalize(case["value"]) == case["form"]
    assert index.of(case["value"], tenant=case["tenant"]).hex() == case["index_hex"]
    assert [each.hex() for each in index.queries(case["form"], tenant=case["tenant"])] == [case["index_hex"]]


def test_the_cases_leave_no_normalizer_out():
    assert {case["normalizer"] for case in CASES} == {*_BY_NAME, "e164"}
    assert {case["normalizer"] for case in CASES if case["outcome"] == "refused"} == {*_BY_NAME, "e164"}


@pytest.mark.skipif(NODE is None, reason=f"needs Node {OLDEST} or later on PATH")
def test_javascript_comes_to_every_outcome():
    done = subprocess.run(
        [NODE, str(Path(__file__).with_name("blind_index.mjs"))],
        input="".join(json.dumps(case) + "\n" for case in CASES),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers == [
        {"refused": True}
        if case["outcome"] == "refused"
        else {"form": case["form"], "index": case["index_hex"]}
        for case in CASES
    ]


def test_the_reference_has_the_numbers_of_the_code():
    flat = " ".join(PAGE.split())
    assert f"`bits` is {LEAST} to {FULL}" in flat
    assert f"An index key is {LENGTH} random bytes" in flat
    assert f"the aad is `{AAD.decode()}`" in flat
    listed = flat.split("Separators are ")[1].split(".")[0]
    named = {chr(int(code, 16)) for code in re.findall(r"U\+([0-9A-F]{4})", listed)}
    assert named == _SEPARATORS


def test_the_worked_example_of_the_reference_is_a_case():
    example = CASES[len(make.FORMS)]
    assert example["index_hex"] in PAGE
    assert make.KEYS[0].hex() in PAGE.replace(" ", "").replace("\n", "")
