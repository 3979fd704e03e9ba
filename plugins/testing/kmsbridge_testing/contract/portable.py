"""Group 10: through the API of applications, all drivers behave alike."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from kmsbridge import Decryptor, Encryptor, inspect
from kmsbridge.cipher import EnvelopeCipher
from kmsbridge.cipher.base import from_profile
from kmsbridge.driver import Capability
from kmsbridge.errors import AuthenticationError, KmsAccessDenied, KmsKeyDisabled, LimitExceeded
from kmsbridge.keys import ManagedKey
from kmsbridge.message import armor
from kmsbridge.policy import DataKeyPolicy
from kmsbridge_testing.contract.base import PAIRS, Cases, Keys, ask_fresh_process, needs, profile_of, refused
from kmsbridge_testing.contract.binding import Pairs, right, wrong
from kmsbridge_testing.harness import Harness

AAD: Final = b"users/42/phone"
MANY, PER_DATA_KEY = 1000, 100
BATCH: Final = 200
THREADS: Final = 32
CHUNK: Final = 16384

A_CALL_EACH: Final = DataKeyPolicy(max_messages=1)


class PortableCases(Cases):
    """Cases for what applications do, and for the number of calls that it takes."""

    @pytest.mark.parametrize("length", [0, 1, 100, CHUNK - 1, CHUNK, 3 * CHUNK + 1])
    def test_bytes_survive(self, keys: Keys, length: int) -> None:
        """A message decrypts with its context and aad, by another cipher as well."""
        plaintext = os.urandom(length)
        message = keys.cipher().encrypt(plaintext, context=PAIRS, aad=AAD)
        assert keys.cipher().decrypt(message, context=PAIRS, aad=AAD) == plaintext

    def test_text_survives(self, keys: Keys) -> None:
        """Text in many scripts survives in the armored form."""
        text = "héllo, 世界, Привет, مرحبا, 👩🏽‍🚀"
        sealed = keys.cipher().encrypt_text(text, context=PAIRS)
        assert sealed.isascii()
        assert keys.cipher().decrypt_text(f"\n {sealed} \n", context=PAIRS) == text

    def test_file_survives(self, keys: Keys, tmp_path: Path) -> None:
        """A file of several chunks decrypts as a whole, and from its middle."""
        plaintext = os.urandom(5 * CHUNK + 7)
        source, sealed, target = (tmp_path / name for name in ("source", "sealed", "target"))
        source.write_bytes(plaintext)
        keys.cipher().encrypt_file(source, sealed, context=PAIRS, aad=AAD)
        keys.cipher().decrypt_file(sealed, target, context=PAIRS, aad=AAD)
        assert target.read_bytes() == plaintext
        with keys.cipher().open(sealed, context=PAIRS, aad=AAD) as reader:
            reader.seek(3 * CHUNK - 2)
            assert reader.read(10) == plaintext[3 * CHUNK - 2 : 3 * CHUNK + 8]

    def test_message_names_the_key(self, keys: Keys, key: ManagedKey) -> None:
        """`inspect` shows the key's id and the version that it reports."""
        (recipient,) = inspect(keys.cipher().encrypt(b"x")).recipients
        assert recipient.key_id == key.key_id
        assert recipient.key_version == key.describe().version

    @right
    def test_context_is_accepted_by_the_api(self, keys: Keys, pairs: Pairs) -> None:
        """Every allowed context works, in direct mode as well."""
        for direct in (False, True):
            message = keys.cipher(direct=direct).encrypt(b"payload", context=pairs)
            assert keys.cipher().decrypt(message, context=pairs) == b"payload"

    @wrong
    def test_wrong_context_is_refused_by_the_api(self, keys: Keys, closed: Pairs, opened: Pairs) -> None:
        """A wrong context is refused, even if the key service does not distinguish the two."""
        message = keys.cipher().encrypt(b"payload", context=closed)
        refused(lambda: keys.cipher().decrypt(message, context=opened), AuthenticationError)

    @pytest.mark.parametrize("direct", [False, True], ids=["data key", "direct"])
    @pytest.mark.parametrize("aad", [b"", b"users/43/phone", AAD + b"\0"], ids=["none", "other", "longer"])
    def test_wrong_aad_is_refused_by_the_api(self, keys: Keys, direct: bool, aad: bytes) -> None:
        """The aad is bound in both modes."""
        message = keys.cipher(direct=direct).encrypt(b"payload", context=PAIRS, aad=AAD)
        refused(lambda: keys.cipher().decrypt(message, context=PAIRS, aad=aad), AuthenticationError)
        assert keys.cipher().decrypt(message, context=PAIRS, aad=AAD) == b"payload"

    def test_direct_mode_takes_the_largest_payload(self, keys: Keys, key: ManagedKey) -> None:
        """Direct mode takes payloads up to the driver's limit, and no longer ones."""
        cipher, largest = keys.cipher(direct=True), key.max_plaintext
        plaintext = os.urandom(largest)
        assert keys.cipher().decrypt(cipher.encrypt(plaintext, context=PAIRS), context=PAIRS) == plaintext
        refused(lambda: cipher.encrypt(bytes(largest + 1), context=PAIRS), LimitExceeded)

    # --- the calls that it costs ------------------------------------------------------------------

    def test_many_of_one_data_key_cost_one_call_each_way(self, calls: Counter[str], keys: Keys) -> None:
        """1,000 messages of one context: one wrap, one unwrap."""
        sent = [str(n).encode() for n in range(MANY)]
        messages = keys.cipher().encrypt_many(sent, context=PAIRS)
        assert keys.cipher().decrypt_many(messages, context=PAIRS) == sent
        assert calls["wrap"] == calls["unwrap"] + calls["unwrap_many"] == 1

    def test_many_of_ten_data_keys_cost_ten_calls_or_few_batches(
        self, calls: Counter[str], keys: Keys, key: ManagedKey, capabilities: frozenset[Capability]
    ) -> None:
        """1,000 messages, a new data key after each 100: ten wraps; each data key is unwrapped once."""
        cipher = keys.cipher(data_keys=DataKeyPolicy(max_messages=PER_DATA_KEY))
        sent = [str(n).encode() for n in range(MANY)]
        messages = cipher.encrypt_many(sent, context=PAIRS)[::-1]
        calls["unwrap"] = calls["unwrap_many"] = 0
        assert keys.cipher().decrypt_many(messages, context=PAIRS) == sent[::-1]
        data_keys = MANY // PER_DATA_KEY
        batches = (0, math.ceil(data_keys / key.batch_limit))
        batch = Capability.BATCH_UNWRAP in capabilities
        assert (calls["unwrap"], calls["unwrap_many"]) == (batches if batch else (data_keys, 0))
        assert calls["wrap"] == data_keys

    def test_more_data_keys_than_a_batch_holds_take_two(
        self,
        calls: Counter[str],
        keys: Keys,
        key: ManagedKey,
        capabilities: frozenset[Capability],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A batch holds `batch_limit`, here at most 200; without batches each data key is a call."""
        batch, most = Capability.BATCH_UNWRAP in capabilities, min(key.batch_limit, BATCH)
        monkeypatch.setattr(ManagedKey, "batch_limit", most)
        sent = [str(n).encode() for n in range(most + 1 if batch else 3)]
        messages = keys.cipher(data_keys=A_CALL_EACH).encrypt_many(sent, context=PAIRS)
        calls["unwrap"] = calls["unwrap_many"] = 0
        assert keys.cipher().decrypt_many(messages, context=PAIRS) == sent
        assert (calls["unwrap"], calls["unwrap_many"]) == ((0, 2) if batch else (3, 0))

    def test_changed_message_among_many_is_told(self, keys: Keys) -> None:
        """`decrypt_many` returns all plaintexts or raises an error."""
        messages = keys.cipher(data_keys=A_CALL_EACH).encrypt_many([b"a", b"b", b"c"], context=PAIRS)
        messages[1] = messages[1][:-1] + bytes([messages[1][-1] ^ 1])
        refused(lambda: keys.cipher().decrypt_many(messages, context=PAIRS), AuthenticationError)

    def test_threads_on_a_cold_cache_make_one_call(self, calls: Counter[str], keys: Keys) -> None:
        """32 threads that all miss the data key wait for one wrap, and for one unwrap."""
        writing, reading = keys.cipher(), keys.cipher()
        messages = _at_once(lambda: writing.encrypt(b"x", context=PAIRS))
        assert _at_once(lambda: reading.decrypt(messages[0], context=PAIRS)) == [b"x"] * THREADS
        assert (calls["wrap"], calls["unwrap"]) == (1, 1)

    @needs("calls")
    def test_service_is_called_as_often_as_the_driver(
        self, harness: Harness, calls: Counter[str], keys: Keys, capabilities: frozenset[Capability]
    ) -> None:
        """The driver and its client do not repeat calls that succeeded."""
        cipher = keys.cipher(data_keys=A_CALL_EACH)
        before = harness.calls("first")
        messages = cipher.encrypt_many([b"a", b"b"], context=PAIRS)
        assert cipher.decrypt_many(messages, context=PAIRS) == [b"a", b"b"]
        wraps = 0 if Capability.LOCAL_WRAP in capabilities else calls["wrap"]
        batches = calls["wrap_many"] + calls["unwrap_many"]
        assert harness.calls("first") - before == wraps + calls["unwrap"] + batches

    # --- roles, several keys, other backends ------------------------------------------------------

    def test_encryptor_and_decryptor_share_the_work(self, harness: Harness, keys: Keys) -> None:
        """A message of an `Encryptor` decrypts with a `Decryptor`."""
        profile = profile_of([harness.address("first")])
        with from_profile(Encryptor, profile) as encryptor, from_profile(Decryptor, profile) as decryptor:
            assert decryptor.decrypt(encryptor.encrypt(b"x", context=PAIRS), context=PAIRS) == b"x"

    @needs("roles")
    def test_rights_of_the_caller_hold_behind_the_api(self, harness: Harness, keys: Keys) -> None:
        """An encrypt-only caller cannot decrypt its own messages; another caller can."""
        with from_profile(EnvelopeCipher, profile_of([harness.address("first", "encrypt-only")])) as cipher:
            message = cipher.encrypt(b"x", context=PAIRS)
            with from_profile(
                EnvelopeCipher, profile_of([harness.address("first", "encrypt-only")])
            ) as other:
                refused(lambda: other.decrypt(message, context=PAIRS), KmsAccessDenied)
        assert keys.cipher().decrypt(message, context=PAIRS) == b"x"

    def test_either_of_two_keys_opens(self, keys: Keys, harness: Harness) -> None:
        """One of a message's two keys is enough to decrypt it."""
        message = keys.cipher("first", "second").encrypt(b"x", context=PAIRS)
        assert keys.cipher("first").decrypt(message, context=PAIRS) == b"x"
        assert keys.cipher("second").decrypt(message, context=PAIRS) == b"x"

    @needs("disable")
    def test_second_key_stands_in_for_a_disabled_one(
        self, harness: Harness, keys: Keys, capabilities: frozenset[Capability]
    ) -> None:
        """Decryption uses the second key. Encryption fails, because a message must be for all keys."""
        message = keys.cipher("first", "second").encrypt(b"x", context=PAIRS)
        harness.disable("first")
        cipher = keys.cipher("first", "second")
        assert cipher.decrypt(message, context=PAIRS) == b"x"
        if Capability.LOCAL_WRAP not in capabilities:
            refused(lambda: cipher.encrypt(b"x", context=PAIRS), KmsKeyDisabled)

    @needs("rotate")
    def test_rewrap_after_a_rotation_is_wanted_and_done(
        self, harness: Harness, keys: Keys, capabilities: frozenset[Capability]
    ) -> None:
        """With REPORTS_VERSION, `needs_rewrap` is true for a message of an old version until it is rewrapped."""
        message = keys.cipher().encrypt(b"x", context=PAIRS)
        harness.rotate("first")
        cipher = keys.cipher()
        assert cipher.needs_rewrap(message) is (Capability.REPORTS_VERSION in capabilities)
        again = cipher.rewrap(message, context=PAIRS)
        assert not cipher.needs_rewrap(again)
        assert keys.cipher().decrypt(again, context=PAIRS) == b"x"

    def test_message_moves_to_another_backend_and_back(
        self, harness: Harness, keys: Keys, peer: Harness
    ) -> None:
        """A message rewrapped to another provider's key decrypts with that key, and rewrapped back with this one."""
        here, there = harness.address("first"), peer.address("first")
        message = keys.cipher().encrypt(b"x", context=PAIRS, aad=AAD)
        for source, target in ((here, there), (there, here)):
            with from_profile(EnvelopeCipher, profile_of([target], [source])) as moving:
                message = moving.rewrap(message, context=PAIRS)
            assert [recipient.key_id.partition(":")[0] for recipient in inspect(message).recipients] == [
                target.uri.partition(":")[0]
            ]
            with from_profile(EnvelopeCipher, profile_of([target])) as cipher:
                assert cipher.decrypt(message, context=PAIRS, aad=AAD) == b"x"

    @needs("fresh_process")
    def test_fresh_process_opens_the_message(self, harness: Harness, keys: Keys) -> None:
        """A new process can decrypt the message: it needs nothing of this process's memory."""
        plaintext = os.urandom(100)
        message = keys.cipher().encrypt(plaintext, context=PAIRS)
        answer = ask_fresh_process(harness, message=armor(message), context=PAIRS)
        assert answer["sha256"] == hashlib.sha256(plaintext).hexdigest()


def _at_once(work: Callable[[], bytes]) -> list[bytes]:
    together = threading.Barrier(THREADS)

    def one(_: int) -> bytes:
        together.wait(30)
        return work()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))
