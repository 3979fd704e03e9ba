"""Public-key recipients, whose seeds a local key wraps."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from kmsbridge_testing.fakes.http_fake import FakeHttpDriver

from kmsbridge import registry
from kmsbridge.driver import KeyURI, Options
from kmsbridge.drivers.hpke import HpkeDriver, privatefile
from kmsbridge.drivers.hpke.document import parse
from kmsbridge.drivers.hpke.pairs import new_name, new_pair
from kmsbridge.drivers.hpke.suites import HYBRID, X25519
from kmsbridge.drivers.local import LocalDriver
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.testing import FakeHttpHarness, Harness, KeyAddress

NO_CALL = "unwrapping makes no call once the seed is opened"


class HpkeHarness(Harness):
    """Two keys of one suite."""

    cannot = {
        "disable": "a private file holds keys, and nobody is asked",
        "schedule_deletion": "a private file is there or it is not",
        "expire_credentials": NO_CALL,
        "break_network": NO_CALL,
        "misdirected": NO_CALL,
        "calls": NO_CALL,
        "sdk": "HPKE comes with cryptography, which the library uses itself",
    }

    def __init__(self, suite=HYBRID):
        self.suite = suite
        self._folder = Path(tempfile.mkdtemp())
        keys = self._folder / "keys.json"
        KeyFile.create(keys, "seeds").close()
        self.protecting = {"uri": f"local:{keys}#seeds"}
        self._driver = LocalDriver.open(KeyURI.parse(self.protecting["uri"]), Options({}))
        self.secrets = []
        self._names = {which: new_name(which) for which in ("first", "second")}
        for which in self._names:
            privatefile.create(self._path(which), self._new_pair(which))

    def address(self, which, role="both"):
        uri = f"hpke:{self._names[which]}"
        if role == "encrypt-only":
            return KeyAddress(uri, {"public_key": self.public_key(which).line()})
        return KeyAddress(uri, {"private_file": self._path(which), "protect_with": self.protecting})

    def named(self, name):
        return KeyAddress(f"hpke:{name}", {"public_key": self.public_key("first").line()})

    def rotate(self, which):
        privatefile.add(self._path(which), lambda _: self._new_pair(which))

    def delete(self, which):
        os.unlink(self._path(which))

    def public_key(self, which):
        """The public key that a host encrypts to now."""
        document = parse(Path(self._path(which)).read_bytes(), "")
        return document.encrypting(privatefile.now()).public_key

    def close(self):
        self._driver.close()
        shutil.rmtree(self._folder)

    def _path(self, which):
        return str(self._folder / f"{which}.toml")

    def _new_pair(self, which):
        now = privatefile.now()
        return new_pair(
            self._names[which], self.suite, self._wrap, self._unwrap, created=now, encrypt_from=now
        )

    def _wrap(self, seed, context):
        self.secrets.append(seed)
        return self._driver.wrap(seed, context, timeout=10)

    def _unwrap(self, wrapped, context):
        return self._driver.unwrap(wrapped, context, timeout=10)


class ForgetfulHpkeDriver(HpkeDriver):
    """Opens the seed anew for every call, so that every fault of the service that protects it is met."""

    def unwrap(self, wrapped, context, *, timeout):
        self._protection._opened.clear()
        return super().unwrap(wrapped, context, timeout=timeout)

    def describe(self, *, timeout):
        state = self._protection.driver.describe(timeout=timeout).state
        return super().describe(timeout=timeout)._replace(state=state)


class HpkeOverHttpHarness(Harness):
    """Two keys whose seeds a service behind HTTP protects, each by a key of its own."""

    driver = ForgetfulHpkeDriver
    cannot = {
        "fresh_process": "the driver of the protecting service is installed in this process only",
        "named": "the protecting keys are made by the harness",
        "sdk": "the driver takes none, and that of the protecting service is in no other process",
        "test_service_is_called_as_often_as_the_driver": "threads that open one seed at once share a call",
        "delete": "the protecting key can be deleted, but that is not to delete this one",
    }

    def __init__(self):
        self._end = contextlib.ExitStack()
        self._inner = FakeHttpHarness()
        self._end.enter_context(registry.replaced(FakeHttpDriver))
        self._folder = Path(self._end.enter_context(tempfile.TemporaryDirectory()))
        self._names = {}
        self.secrets = [*self._inner.secrets]

    def address(self, which, role="both"):
        if which not in self._names:
            self._names[which] = new_name(which)
            privatefile.create(self._path(which), self._new_pair(which))
        if role == "encrypt-only":
            document = parse(Path(self._path(which)).read_bytes(), "")
            line = document.encrypting(privatefile.now()).public_key.line()
            # As a caller that may only wrap with the service's key, too: what it holds opens nothing.
            return self._with(which, self._inner.address(which, role), public_key=line)
        return self._with(which, self._inner.address(which, role))

    def misdirected(self, why):
        self.address("first")
        return self._with("first", self._inner.misdirected(why))

    def rotate(self, which):
        self.address(which)
        privatefile.add(self._path(which), lambda _: self._new_pair(which))

    def disable(self, which):
        self._inner.disable(which)

    def enable(self, which):
        self._inner.enable(which)

    def schedule_deletion(self, which):
        self._inner.schedule_deletion(which)

    def expire_credentials(self):
        self._inner.expire_credentials()

    def break_network(self, fault):
        self._inner.break_network(fault)

    def heal_network(self):
        self._inner.heal_network()

    def arrivals(self):
        return self._inner.arrivals()

    def astray(self):
        return self._inner.astray()

    def calls(self, which):
        return self._inner.calls(which)

    def close(self):
        self._end.close()
        self._inner.close()

    def _path(self, which):
        return str(self._folder / f"{which}.toml")

    def _with(self, which, inner, **more):
        options = {"private_file": self._path(which), "protect_with": {"uri": inner.uri, **inner.options}}
        return KeyAddress(f"hpke:{self._names[which]}", {**options, **more})

    def _new_pair(self, which):
        address, now = self._inner.address(which), privatefile.now()
        driver = FakeHttpDriver.open(KeyURI.parse(address.uri), Options(dict(address.options)))

        def wrap(seed, context):
            self.secrets.append(seed)
            return driver.wrap(seed, context, timeout=10)

        with contextlib.closing(driver):
            return new_pair(
                self._names[which],
                X25519,
                wrap,
                lambda wrapped, context: driver.unwrap(wrapped, context, timeout=10),
                created=now,
                encrypt_from=now,
            )
