"""A reader and a writer in JavaScript, `reader.mjs`, agree with the vectors and with the library."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from kmsbridge import inspect
from tests.vectors.casebook import KEY_FILE
from tests.vectors.frozen import CASES, Case
from tests.vectors.random_messages import Case as RandomCase
from tests.vectors.random_messages import open_cipher, read, some_contexts, written

MESSAGES = 1_000
OLDEST = 20


def node():
    """The path of Node, or None where it is missing or too old."""
    path = shutil.which("node")
    if path is None:
        return None
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    major = version.removeprefix("v").partition(".")[0]
    return path if major.isdecimal() and int(major) >= OLDEST else None


NODE = node()
pytestmark = pytest.mark.skipif(NODE is None, reason=f"needs Node {OLDEST} or later on PATH")


def ask(requests):
    """The answers of one process to the requests, in order."""
    done = subprocess.run(
        [NODE, str(Path(__file__).with_name("reader.mjs"))],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(requests)
    return answers


def check(case, answer, outcome):
    """Hold an answer to the case."""
    assert answer.get("refused", "success") == outcome, case.name
    if outcome == "success":
        case.check(bytes.fromhex(answer["plaintext"]))


def test_the_reader_comes_to_every_outcome():
    """Every frozen case, by a reader without a key store."""
    cases = [Case(name) for name in sorted(CASES)]
    answers = ask([{**case.data, "store": None} for case in cases])
    for case, answer in zip(cases, answers, strict=True):
        check(case, answer, case.outcome)


def test_the_reader_with_a_key_store_comes_to_every_outcome():
    """The cases of kinds 1 and 4 that name what a store has."""
    cases = [Case(name) for name in sorted(CASES) if "store" in CASES[name]]
    assert len(cases) > 10
    for case, answer in zip(cases, ask([case.data for case in cases]), strict=True):
        check(case, answer, case.data["outcome_with_store"])


def test_the_reader_reads_what_the_library_writes(tmp_path, torture):
    """Random messages of kinds 0 and 3, and their armored forms."""
    rng = torture.rng("library to JavaScript")
    contexts, requests, payloads = some_contexts(rng, 50), [], []
    with open_cipher(tmp_path) as cipher:
        for _ in range(MESSAGES):
            case = RandomCase(rng, contexts)
            message, _ = written(cipher, case, rng)
            given = {"armored": message} if isinstance(message, str) else {"message_hex": message.hex()}
            given |= {"context": case.context, "aad_hex": case.aad.hex()}
            requests.append({**given, "key_file": KEY_FILE, "decrypt_with": ["other", "app"]})
            payloads.append(case.payload.hex())
    assert [answer.get("plaintext") for answer in ask(requests)] == payloads


def test_the_library_reads_what_the_writer_writes(tmp_path, torture):
    """Random messages of kinds 0 and 3, for one key or two, and their armored forms."""
    rng = torture.rng("JavaScript to library")
    contexts = some_contexts(rng, 50)
    cases = [RandomCase(rng, contexts) for _ in range(MESSAGES)]
    requests = [
        {
            "encrypt": 0 if len(case.payload) > 65536 else rng.choice((0, 3, 3)),
            "armor": case.is_text and rng.random() < 0.5,
            "plaintext_hex": case.payload.hex(),
            "context": case.context,
            "aad_hex": case.aad.hex(),
            "key_file": KEY_FILE,
            "encrypt_to": rng.choice((["app"], ["other"], ["app", "other"])),
        }
        for case in cases
    ]
    with open_cipher(tmp_path) as cipher:
        for case, request, answer in zip(cases, requests, ask(requests), strict=True):
            message = answer["armored"] if request["armor"] else bytes.fromhex(answer["message"])
            assert read(cipher, message, case, rng) == case.payload
            assert inspect(message).body == ("compact" if request["encrypt"] == 3 else "chunked")


def test_the_library_reads_direct_messages_of_the_writer(tmp_path, torture):
    """Kind 2, with and without an aad."""
    rng = torture.rng("direct from JavaScript")
    cases = [
        case for case in (RandomCase(rng, [{}, {"a": "b"}]) for _ in range(200)) if len(case.payload) <= 4096
    ]
    requests = [
        {
            "encrypt": 2,
            "plaintext_hex": case.payload.hex(),
            "context": case.context,
            "aad_hex": case.aad.hex(),
            "key_file": KEY_FILE,
            "encrypt_to": ["app"],
        }
        for case in cases
    ]
    with open_cipher(tmp_path) as cipher:
        for case, answer in zip(cases, ask(requests), strict=True):
            assert cipher.decrypt(bytes.fromhex(answer["message"]), **case.binding) == case.payload
