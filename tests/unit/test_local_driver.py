"""The `local` driver: what it wraps opens again under the same key, version and context, and not otherwise."""

import base64
import copy
import errno
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from kmsbridge_testing.contract import base as contract

from kmsbridge.context import EMPTY, EncryptionContext
from kmsbridge.driver import (
    Capability,
    ErrorKind,
    KeyState,
    KeyURI,
    Options,
    Secret,
    WrappedKey,
)
from kmsbridge.drivers.local import LocalDriver
from kmsbridge.drivers.local.document import Cost
from kmsbridge.drivers.local.errors import LocalKeyError
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.errors import AuthenticationError, ClosedError, ConfigError, KmsBridgeError, LimitExceeded
from kmsbridge.keys import ManagedKey
from kmsbridge.message import chunked
from kmsbridge.registry import driver_class
from tests.support import is_library

FAST = Cost(iterations=1, memory_kib=64, lanes=1)
CONTEXT = EncryptionContext.of({"tenant": "acme", "table": "users"})
DATA_KEY = bytes(range(32))
WORD = "canary-passphrase"


@pytest.fixture
def file(tmp_path):
    """A key file with one key, app."""
    return KeyFile.create(tmp_path / "keys.json", "app")


def open_driver(file, name="app", **options):
    return LocalDriver.open(KeyURI.parse(f"local:{file.path}#{name}"), Options(options))


@pytest.fixture
def driver(file):
    """A driver for app."""
    driver = open_driver(file)
    yield driver
    driver.close()


def wrap(driver, plaintext=DATA_KEY, context=CONTEXT):
    return driver.wrap(plaintext, context, timeout=5)


def unwrap(driver, wrapped, context=CONTEXT):
    return driver.unwrap(wrapped, context, timeout=5)


def id_of(driver):
    return driver.resolve(timeout=5)


def kind_of(driver, call):
    """What the library would make of the exception that `call` lets out."""
    with pytest.raises((LocalKeyError, OSError, AuthenticationError)) as caught:
        call()
    return contract.kind_of(driver, caught.value, "unwrap")


# --- opening --------------------------------------------------------------------------------------


def test_the_driver_is_found_by_its_scheme():
    """As every driver is asked for."""
    assert driver_class("local") is LocalDriver


@pytest.mark.parametrize("uri", ("local:keys.json#app", "local:keys.json", "local:./keys.json#app"))
def test_a_relative_path_starts_at_the_configurations_folder(file, uri, monkeypatch):
    """Not at the working directory, and it does not move with it afterwards."""
    folder = os.path.dirname(file.path)
    monkeypatch.chdir("/")
    driver = LocalDriver.open(KeyURI.parse(uri), Options({}, folder=folder))
    assert id_of(driver) == file.describe("app").key_id


def test_without_a_folder_the_path_starts_at_the_working_directory_of_the_opening(file, monkeypatch):
    """A later chdir changes nothing."""
    monkeypatch.chdir(os.path.dirname(file.path))
    driver = LocalDriver.open(KeyURI.parse("local:keys.json#app"), Options({}))
    monkeypatch.chdir("/")
    assert unwrap(driver, wrap(driver)) == DATA_KEY


def test_percent_escapes_in_a_path_are_decoded(tmp_path):
    """A folder may have any name."""
    (tmp_path / "a b#c").mkdir(mode=0o700)
    KeyFile.create(tmp_path / "a b#c" / "k.json", "app")
    driver = LocalDriver.open(KeyURI.parse(f"local:{tmp_path}/a%20b%23c/k.json"), Options({}))
    assert unwrap(driver, wrap(driver)) == DATA_KEY


@pytest.mark.parametrize(
    "name",
    (
        "..",
        ".",
        "a..b",
        "a/b",
        "../app",
        "a%2fb",
        "a%2Fb",
        "%2e%2e",
        "-a",
        ".a",
        "a%20b",
        "%C3%A9",
        "a" * 129,
        "a" * 1025,
    ),
)
def test_a_name_that_no_key_can_have_is_refused_at_open(file, name):
    """`ConfigError` with the rule."""
    with pytest.raises(ConfigError, match="not a valid name of a key"):
        open_driver(file, name)


@pytest.mark.parametrize("name", ("a%0Ab", "a%00b", "app%0a"))
def test_a_control_character_in_a_name_is_refused(file, name):
    """By the URI already."""
    with pytest.raises(ConfigError, match="control character"):
        open_driver(file, name)


@pytest.mark.parametrize("name", ("a\nb", "a\0b", "app\n"))
def test_a_control_character_is_refused_also_where_the_uri_was_not_parsed(file, name):
    """`KeyURI` can be made without `parse`."""
    with pytest.raises(ConfigError, match="not a valid name of a key"):
        LocalDriver.open(KeyURI("local", file.path, {}, name), Options({}))


@pytest.mark.parametrize(
    ("path", "text"),
    (
        ("", "has no path"),
        ("a\0b", "NUL"),
        ("x" * 1025, "ENAMETOOLONG"),
        ("/dev/null/keys.json", "ENOTDIR"),
        ("/dev/null", "not a regular file"),
        ("/", "not a regular file"),
    ),
    ids=["empty", "NUL", "1025 bytes", "below a device", "a device", "a folder"],
)
def test_a_path_that_cannot_be_read_is_a_config_error(path, text):
    """Never the operating system's own exception."""
    with pytest.raises(ConfigError, match=text):
        LocalDriver.open(KeyURI("local", path, {}), Options({}))


def test_a_missing_file_names_the_command_that_makes_one(tmp_path):
    """The remedy is `kmsbridge init`."""
    with pytest.raises(ConfigError, match="kmsbridge init") as caught:
        LocalDriver.open(KeyURI.parse(f"local:{tmp_path}/none.json#app"), Options({}))
    assert f"{tmp_path}/none.json" in caught.value.message


def test_parameters_are_refused_by_name_and_not_by_value(file):
    """What was pasted there may be a secret."""
    with pytest.raises(ConfigError, match="passphrase") as caught:
        LocalDriver.open(KeyURI.parse(f"local:{file.path}?passphrase=hunter2#app"), Options({}))
    assert "hunter2" not in str(caught.value)


def test_an_unknown_key_names_those_there_are(file):
    """So does a URI without a name where there are several; an empty file says that it is empty."""
    file.add_key("other")
    for name in ("nobody", ""):
        with pytest.raises(ConfigError, match="its keys are app, other"):
            open_driver(file, name)
    file.remove_key("app")
    assert id_of(open_driver(file, "")) == file.describe("other").key_id
    file.remove_key("other")
    with pytest.raises(ConfigError, match="has no keys"):
        open_driver(file, "")


def test_the_only_option_is_the_passphrase(file):
    """Everything else is left for the library to refuse."""
    options = Options({"pasphrase": "x"})
    LocalDriver.open(KeyURI.parse(f"local:{file.path}"), options)
    assert options.known() == ["passphrase"]
    assert [name for _, name in options.unknown()] == ["pasphrase"]


def test_what_the_class_promises():
    """A move to a key service must not meet a smaller limit."""
    assert LocalDriver.max_plaintext == 4096
    assert LocalDriver.capabilities == {
        Capability.BINDS_CONTEXT,
        Capability.REPORTS_VERSION,
        Capability.ROTATE,
    }


def test_a_production_profile_can_refuse_it(driver):
    """It says why."""
    assert driver.development_settings() == ("the key is in a file",)


# --- wrapping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", (0, 1, 16, 32, 64, 4095, 4096))
def test_what_was_wrapped_unwraps(driver, length):
    """Any length up to the limit; 72 bytes longer when wrapped."""
    plaintext = os.urandom(length)
    wrapped = wrap(driver, plaintext)
    assert unwrap(driver, wrapped) == plaintext
    assert len(wrapped.ciphertext) == length + 72


def test_a_payload_beyond_the_limit_is_too_large(driver):
    """4097 bytes, which the library does not hand to the driver."""
    with pytest.raises(LimitExceeded, match="4097 bytes"):
        ManagedKey("app", lambda: driver).wrap(bytes(4097), CONTEXT)


def test_two_wraps_of_the_same_differ(driver):
    """Nobody sees that two data keys are the same."""
    assert wrap(driver).ciphertext != wrap(driver).ciphertext


@pytest.mark.parametrize(
    "other",
    (
        None,
        {"tenant": "acme"},
        {"tenant": "acme", "table": "users", "more": "1"},
        {"tenant": "acme", "table": "Users"},
        {"Tenant": "acme", "table": "users"},
        {"tenant": "users", "table": "acme"},
        {"tenan": "tacme", "table": "users"},
    ),
    ids=["missing", "one fewer", "one more", "other value", "other name", "swapped", "moved boundary"],
)
def test_another_context_does_not_unwrap(driver, other):
    """The context is bound, all of it."""
    wrapped = wrap(driver)
    assert (
        kind_of(driver, lambda: unwrap(driver, wrapped, EncryptionContext.of(other)))
        is ErrorKind.NOT_AUTHENTIC
    )


def test_the_order_of_the_context_does_not_matter(driver):
    """A context is a set of pairs."""
    assert (
        unwrap(driver, wrap(driver), EncryptionContext.of({"table": "users", "tenant": "acme"})) == DATA_KEY
    )


def test_every_changed_or_missing_byte_is_noticed(driver):
    """Each flip, each truncation, each appended byte."""
    wrapped = wrap(driver)
    whole = wrapped.ciphertext
    bad = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))]
    bad += [whole[:i] for i in range(len(whole))] + [whole + b"\0", b""]
    for ciphertext in bad:
        changed = WrappedKey(wrapped.key_id, wrapped.version, ciphertext)
        assert kind_of(driver, lambda changed=changed: unwrap(driver, changed)) is ErrorKind.NOT_AUTHENTIC


def test_the_wrapping_is_what_the_documentation_says(file, driver):
    """Cobblestone-256 under the version's 32 bytes: someone with the file alone can open it."""
    material = base64.b64decode(
        json.loads(Path(file.path).read_text())["keys"]["app"]["versions"]["1"]["material"]
    )
    context = b"kmsbridge-local/v1\0" + CONTEXT.canonical()
    assert chunked.decrypt(material, context, wrap(driver).ciphertext) == DATA_KEY


def test_another_key_does_not_unwrap(file, driver, tmp_path):
    """Neither of the same file, nor one of the same name in another file, whatever id the message claims."""
    file.add_key("other")
    namesake = KeyFile.create(tmp_path / "second.json", "app")
    wrapped = wrap(driver)
    for other in (open_driver(file, "other"), open_driver(namesake)):
        assert id_of(other) != id_of(driver)
        claimed = WrappedKey(id_of(other), wrapped.version, wrapped.ciphertext)
        assert kind_of(driver, lambda other=other: unwrap(other, wrapped)) is ErrorKind.NOT_AUTHENTIC
        assert kind_of(driver, lambda other=other, it=claimed: unwrap(other, it)) is ErrorKind.NOT_AUTHENTIC


def test_the_id_stays_when_the_file_moves(file, driver, tmp_path):
    """What was wrapped before opens from the new place."""
    wrapped = wrap(driver)
    moved = tmp_path / "moved"
    moved.mkdir(mode=0o700)
    os.rename(file.path, moved / "renamed.json")
    again = LocalDriver.open(KeyURI.parse(f"local:{moved}/renamed.json#app"), Options({}))
    assert id_of(again) == id_of(driver) == wrapped.key_id
    assert unwrap(again, wrapped) == DATA_KEY


def test_a_wrapped_key_that_claims_another_id_does_not_unwrap(driver):
    """Even where the bytes are this key's own: what a message says of its key is true or refused."""
    wrapped = wrap(driver)
    claimed = WrappedKey("local:app@" + "0" * 16, wrapped.version, wrapped.ciphertext)
    assert kind_of(driver, lambda: unwrap(driver, claimed)) is ErrorKind.NOT_AUTHENTIC


# --- versions, states -----------------------------------------------------------------------------


def test_after_a_rotation_old_and_new_unwrap(driver):
    """New wraps carry the new version, as does the description."""
    wrapped = [wrap(driver)]
    for _ in range(3):
        driver.rotate(timeout=5)
        wrapped.append(wrap(driver))
    assert [each.version for each in wrapped] == ["1", "2", "3", "4"]
    assert [unwrap(driver, each) for each in wrapped] == [DATA_KEY] * 4
    assert driver.describe(timeout=5).version == "4"


def test_a_rotation_by_another_process_is_used_at_once(file, driver):
    """And what the other process wrapped with the new version unwraps here."""
    code = """if True:
        import sys
        from kmsbridge.drivers.local.keyfile import KeyFile
        KeyFile(sys.argv[1]).rotate("app")
    """
    assert wrap(driver).version == "1"
    subprocess.run([sys.executable, "-c", code, file.path], check=True, timeout=60)
    assert wrap(driver).version == "2"
    assert unwrap(driver, wrap(open_driver(file))) == DATA_KEY


@pytest.mark.parametrize("version", ("2", "0", "", "01", "-1", "1 ", "one", "\u0661", "9" * 255))
def test_an_unknown_version_is_not_found(driver, version):
    """KEY_NOT_FOUND with a remedy, whether or not it could be a version."""
    wrapped = WrappedKey(id_of(driver), version, wrap(driver).ciphertext)
    with pytest.raises(LocalKeyError) as caught:
        unwrap(driver, wrapped)
    assert caught.value.kind is ErrorKind.KEY_NOT_FOUND
    assert "restore it from a backup" in caught.value.remedy
    assert version[:20] in ("2", "9" * 20, "") or version not in str(caught.value).split()


def test_another_version_does_not_unwrap(driver):
    """A message cannot claim another version than its own."""
    wrapped = wrap(driver)
    driver.rotate(timeout=5)
    claimed = WrappedKey(wrapped.key_id, "2", wrapped.ciphertext)
    assert kind_of(driver, lambda: unwrap(driver, claimed)) is ErrorKind.NOT_AUTHENTIC


def test_a_disabled_key_does_nothing_until_it_is_enabled(file, driver):
    """KEY_DISABLED both ways, and described as such."""
    wrapped = wrap(driver)
    file.set_state("app", KeyState.DISABLED)
    assert kind_of(driver, lambda: wrap(driver)) is ErrorKind.KEY_DISABLED
    assert kind_of(driver, lambda: unwrap(driver, wrapped)) is ErrorKind.KEY_DISABLED
    assert driver.describe(timeout=5).state is KeyState.DISABLED
    file.set_state("app", KeyState.ENABLED)
    assert unwrap(driver, wrapped) == DATA_KEY
    assert driver.describe(timeout=5).state is KeyState.ENABLED


def test_a_removed_key_is_not_found_even_with_a_new_one_of_its_name(file, driver):
    """A new key of that name has another id and cannot stand in for it."""
    wrapped = wrap(driver)
    calls = (
        lambda: wrap(driver),
        lambda: unwrap(driver, wrapped),
        lambda: driver.describe(timeout=5),
        lambda: driver.rotate(timeout=5),
    )
    file.remove_key("app")
    assert {kind_of(driver, call) for call in calls} == {ErrorKind.KEY_NOT_FOUND}
    file.add_key("app")
    assert {kind_of(driver, call) for call in calls} == {ErrorKind.KEY_NOT_FOUND}
    assert file.describe("app").current == "1"
    assert id_of(open_driver(file)) != id_of(driver)


def test_a_removed_file_is_not_found_and_its_return_is_noticed(file, driver):
    """The same object recovers when the file is back."""
    wrapped = wrap(driver)
    os.rename(file.path, f"{file.path}.away")
    assert kind_of(driver, lambda: unwrap(driver, wrapped)) is ErrorKind.KEY_NOT_FOUND
    os.rename(f"{file.path}.away", file.path)
    assert unwrap(driver, wrapped) == DATA_KEY


def test_a_file_damaged_while_open_is_a_config_error_and_its_repair_is_noticed(file, driver):
    """The message names the file; the same object recovers."""
    wrapped = wrap(driver)
    whole = Path(file.path).read_text()
    Path(file.path).write_text(whole[:100])
    with pytest.raises(ConfigError, match=r"keys\.json cannot be used"):
        unwrap(driver, wrapped)
    Path(file.path).write_text(whole)
    assert unwrap(driver, wrapped) == DATA_KEY


@pytest.mark.parametrize(
    ("code", "kind"),
    (
        (errno.ENOENT, ErrorKind.KEY_NOT_FOUND),
        (errno.EACCES, ErrorKind.ACCESS_DENIED),
        (errno.EPERM, ErrorKind.ACCESS_DENIED),
        (errno.EIO, ErrorKind.UNAVAILABLE),
        (errno.ESTALE, ErrorKind.UNAVAILABLE),
        (errno.EMFILE, ErrorKind.UNAVAILABLE),
        (errno.ENOSPC, ErrorKind.UNAVAILABLE),
        (errno.EROFS, ErrorKind.UNAVAILABLE),
    ),
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else value.name,
)
def test_the_operating_systems_errors_are_classified(file, driver, monkeypatch, code, kind):
    """By their class, with the code's name and a remedy as details."""
    file.rotate("app")  # so that the driver has to read the file again

    def fails(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("kmsbridge.drivers.local.files.os.open", fails)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))) as caught:
        wrap(driver)
    details = driver.error_details(caught.value)
    assert driver.classify(caught.value, "wrap") is kind
    assert details.code == errno.errorcode[code]
    assert details.remedy


@pytest.mark.parametrize("error", [TypeError("x"), TimeoutError(), TimeoutError("soft limit"), OSError("x")])
def test_an_exception_that_no_file_caused_is_somebody_elses(driver, error):
    """A signal handler's, say, which may be an `OSError`: those of the system have a number."""
    assert driver.classify(error, "wrap") is None
    assert driver.error_details(error).remedy == ""


def test_the_description_says_how_to_rotate(driver):
    """In words, with the command."""
    description = driver.describe(timeout=5)
    assert description.key_id == id_of(driver)
    assert (description.version, description.rotation) == ("1", "by hand: kmsbridge rotate")


# --- passphrases ----------------------------------------------------------------------------------


@pytest.fixture
def protected(tmp_path):
    """A key file with one key, app, under WORD."""
    return KeyFile.create(tmp_path / "protected.json", "app", Secret.of_text(WORD), cost=FAST)


def test_a_protected_file_opens_with_its_passphrase(protected):
    """Round trip, rotation, and a second driver."""
    driver = open_driver(protected, passphrase=WORD)
    wrapped = wrap(driver)
    driver.rotate(timeout=5)
    assert unwrap(open_driver(protected, passphrase=WORD), wrapped) == DATA_KEY
    assert wrap(driver).version == "2"


def test_opening_does_not_derive_the_key(protected, monkeypatch):
    """`open` is quick: a wrong passphrase shows at the first call, as an expired credential would."""
    monkeypatch.setattr("kmsbridge.drivers.local.protection.passphrase_key", None)
    assert open_driver(protected, passphrase="wrong").describe(timeout=5).version == "1"


def test_a_wrong_passphrase_is_unauthenticated(protected):
    """On wrap, unwrap and rotate, with a remedy."""
    wrapped = wrap(open_driver(protected, passphrase=WORD))
    driver = open_driver(protected, passphrase=WORD + "\n")
    for call in (
        lambda: wrap(driver),
        lambda: unwrap(driver, wrapped),
        lambda: driver.rotate(timeout=5),
    ):
        with pytest.raises(LocalKeyError) as caught:
            call()
        assert caught.value.kind is ErrorKind.UNAUTHENTICATED
        assert "newline" in caught.value.remedy


@pytest.mark.parametrize("options", ({}, {"passphrase": ""}), ids=["missing", "empty"])
def test_a_missing_passphrase_is_a_config_error_at_open(protected, options):
    """It names the option."""
    with pytest.raises(ConfigError, match="passphrase"):
        open_driver(protected, **options)


def test_a_protected_file_has_no_material_in_the_clear(protected):
    """The stored material does not open what it wrapped; the passphrase is not in the file."""
    text = Path(protected.path).read_text()
    driver = open_driver(protected, passphrase=WORD)
    document = protected.document()
    material = protected.material(document, document.keys["app"], "1", timeout=5).reveal()
    assert unwrap(driver, wrap(driver)) == DATA_KEY
    assert base64.b64encode(material).decode() not in text
    assert WORD not in text


# --- life -----------------------------------------------------------------------------------------


def test_use_after_close_raises_and_closing_twice_does_not(driver):
    """Every call; the id is a name and stays readable."""
    wrapped = wrap(driver)
    driver.close()
    driver.close()
    for call in (
        lambda: wrap(driver),
        lambda: unwrap(driver, wrapped),
        lambda: driver.describe(timeout=5),
        lambda: driver.rotate(timeout=5),
    ):
        with pytest.raises(ClosedError):
            call()
    assert id_of(driver) == wrapped.key_id


def test_threads_share_a_driver_while_others_rotate(file, driver):
    """64 threads, each its own data key, three rotations under way."""
    start, failures = threading.Barrier(65), []

    def use(number):
        start.wait()
        for round_ in range(20):
            mine = bytes([number, round_]) * 16
            context = EncryptionContext.of({"thread": str(number)})
            if unwrap(driver, wrap(driver, mine, context), context) != mine:
                failures.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    start.wait()
    for _ in range(3):
        file.rotate("app")
    for thread in threads:
        thread.join()
    assert failures == []
    assert wrap(driver).version == "4"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_a_thread_derives_the_key_does_not_hang_the_child(protected):
    """The child's lock is new, and the derived key is not inherited."""
    driver = open_driver(protected, passphrase=WORD)
    wrapped = wrap(driver)
    unlocker = driver._file._unlocker
    with unlocker._lock:
        child = os.fork()
        if child == 0:
            try:
                fresh = unlocker._known is None
                os._exit(0 if fresh and driver.unwrap(wrapped, CONTEXT, timeout=20) == DATA_KEY else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert unwrap(driver, wrapped) == DATA_KEY


# --- secrets --------------------------------------------------------------------------------------


def shown(error):
    """What a reporter could print of an error, with the local variables of the library's frames."""
    report, todo = "", [error]
    while todo:
        exc = todo.pop()
        report += repr(exc) + str(exc) + repr(vars(exc))
        for frame, _ in traceback.walk_tb(exc.__traceback__):
            if is_library(frame.f_code.co_filename):
                report += repr(frame.f_locals)
        todo += [linked for linked in (exc.__cause__, exc.__context__) if linked is not None]
    return report


@pytest.fixture
def secrets(file, protected):
    """Each secret of both files, raw and as the file writes it."""
    values = [WORD, repr(DATA_KEY)]
    for each in (file, protected):
        document = each.document()
        key = document.keys["app"]
        material = each.material(document, key, "1", timeout=5).reveal()
        stored = key.versions["1"].material.reveal()
        values += [repr(material), base64.b64encode(material).decode(), base64.b64encode(stored).decode()]
    return values


def test_no_secret_shows_in_a_repr_or_a_pickle(file, protected, secrets):
    """Of drivers that have been used; pickling and deep copies are refused."""
    for driver in (open_driver(file), open_driver(protected, passphrase=WORD)):
        unwrap(driver, wrap(driver))
        texts = [repr(driver), str(driver), repr(driver._file), repr(vars(driver)), repr(vars(driver._file))]
        assert not [secret for secret in secrets for text in texts if secret in text]
        for refused in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                refused(driver)


def test_no_secret_shows_in_an_error_or_in_what_it_keeps_alive(file, protected, secrets, monkeypatch):
    """Wrong context, wrong passphrase, a full disk, a damaged file, a disabled key."""
    plain, right = open_driver(file), open_driver(protected, passphrase=WORD)
    wrong = open_driver(protected, passphrase=WORD + "x")
    wrapped = {driver: wrap(driver) for driver in (plain, right)}
    errors = []

    def collect(call):
        with pytest.raises((KmsBridgeError, LocalKeyError, OSError)) as caught:
            call()
        errors.append(caught.value)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    collect(lambda: unwrap(plain, wrapped[plain], EMPTY))
    collect(lambda: unwrap(right, wrapped[right], EMPTY))
    collect(lambda: unwrap(wrong, wrapped[right]))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        collect(lambda: plain.rotate(timeout=5))
        collect(lambda: right.rotate(timeout=5))
    for each in (file, protected):
        each.set_state("app", KeyState.DISABLED)
    collect(lambda: unwrap(plain, wrapped[plain]))
    whole = Path(file.path).read_text()
    Path(file.path).write_text(whole[:-10])
    collect(lambda: unwrap(plain, wrapped[plain]))
    collect(lambda: open_driver(file))
    assert len(errors) == 8
    assert not [(error, secret) for error in errors for secret in secrets if secret in shown(error)]


def test_nothing_is_logged(file, caplog):
    """The library audits calls; a driver is silent."""
    caplog.set_level(logging.DEBUG)
    driver = open_driver(file)
    unwrap(driver, wrap(driver))
    driver.rotate(timeout=5)
    assert caplog.records == []
