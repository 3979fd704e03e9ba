"""Ten thousand messages at once, with two hundred data keys among them."""

from contextlib import ExitStack

import pytest

from kmsbridge import AuthenticationError, Decryptor, Encryptor
from tests.backends.every import HARNESSES, configuration, harness

MESSAGES, DATA_KEYS = 10_000, 200


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in HARNESSES if name != "local"])
def test_each_data_key_is_unwrapped_once(backend, tmp_path):
    """In one request where the provider has batches; the order is kept, and one bad message loses no other."""
    with ExitStack() as stack:
        service = harness(backend)
        stack.callback(service.close)
        path = tmp_path / "kmsbridge.toml"
        writing = {"encrypt_to": ["app"], "data_keys": {"max_messages": MESSAGES // DATA_KEYS}}
        path.write_text(
            configuration(
                {"app": service.address("first")}, {"write": writing, "read": {"decrypt_with": ["app"]}}
            )
        )
        payloads = [str(number).encode() for number in range(MESSAGES)]
        with Encryptor.from_config(path, profile="write") as encryptor:
            messages = encryptor.encrypt_many(payloads)
        before = service.calls("first")
        with Decryptor.from_config(path, profile="read") as decryptor:
            assert decryptor.decrypt_many(messages) == payloads
            asked = service.calls("first") - before
            messages[1234] = messages[1234][:-1] + bytes([messages[1234][-1] ^ 1])
            results = decryptor.decrypt_many(messages, errors="return")
        assert asked == (1 if backend == "vault" else DATA_KEYS)
        assert isinstance(results.pop(1234), AuthenticationError)
        payloads.pop(1234)
        assert results == payloads
        assert service.calls("first") - before == asked
