"""What this library writes down, and what the key service writes down of the same calls."""

import contextlib
import json

import pytest
from click.testing import CliRunner

from kmsbridge import AuthenticationError, EnvelopeCipher
from kmsbridge.cli.app import app
from kmsbridge.errors import KmsAccessDenied
from tests.backends.every import configuration
from tests.backends.gcp import GcpHarness
from tests.backends.vault import DerivedVaultHarness, VaultHarness

CONTEXT = {"tenant": "acme"}
USES = {"encrypt": "wrap", "decrypt": "unwrap", "rewrap": "rewrap"}


class Trail:
    """A folder with a configuration whose profiles write one audit file."""

    def __init__(self, folder, harness):
        keys = {role: harness.address("first", role) for role in ("both", "encrypt-only", "decrypt-only")}
        audit = {"file": str(folder / "audit.jsonl"), "required": True}
        profiles = {
            role: {
                "encrypt_to": [role],
                "decrypt_with": [role],
                "audit": audit,
                "data_keys": {"max_messages": 1},
            }
            for role in keys
        }
        self.folder, self.path = folder, folder / "kmsbridge.toml"
        self.path.write_text(configuration(keys, profiles))

    def open(self, role):
        return EnvelopeCipher.from_config(self.path, profile=role)

    def command(self, *args):
        return CliRunner().invoke(app, ["--config", str(self.path), *args])

    def calls(self):
        """Operation and request id of each call, in their order; the file must be whole."""
        assert self.command("audit", "verify", str(self.folder / "audit.jsonl")).exit_code == 0
        events = [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]
        return [(each["operation"], each["request_id"]) for each in events if each.get("source") == "call"]


@pytest.fixture
def begin(tmp_path):
    """A harness of this kind, and the trail of what is done with its first key."""
    with contextlib.ExitStack() as end:

        def begin(kind):
            harness = end.enter_context(contextlib.closing(kind()))
            return harness, Trail(tmp_path, harness)

        yield begin


def use(trail, harness):
    """Every operation, allowed, refused and failed."""
    with trail.open("both") as cipher:
        message, other = (cipher.encrypt(b"payload", context=CONTEXT) for _ in range(2))
        assert cipher.decrypt(message, context=CONTEXT) == b"payload"
        harness.rotate("first")
        cipher.rewrap(message, context=CONTEXT)
        with pytest.raises(AuthenticationError):
            cipher.decrypt(other, context={"tenant": "another"})
        cipher.decrypt_many([message, other], context=CONTEXT)
    with trail.open("encrypt-only") as cipher, pytest.raises(KmsAccessDenied):
        cipher.decrypt(message, context=CONTEXT)
    with trail.open("decrypt-only") as cipher:
        with pytest.raises(KmsAccessDenied):
            cipher.encrypt(b"payload", context=CONTEXT)
        with pytest.raises(KmsAccessDenied):
            cipher.rewrap(message, context=CONTEXT)


def written_by_openbao(harness, since):
    """Operation and ids of each use of a key in its audit file: the server's own, and the one it was sent."""
    written = []
    for request in harness.vault.audited(since):
        mount, _, rest = request["path"].partition("/")
        use, _, name = rest.partition("/")
        if mount == "transit" and use in USES and name in harness._keys.values():
            sent = request.get("headers", {}).get("x-request-id", [])
            written.append((USES[use], {request["id"], *sent}))
    return written


@pytest.mark.parametrize("kind", [VaultHarness, DerivedVaultHarness], ids=["AEAD key", "derived key"])
def test_events_carry_the_request_ids_of_openbaos_audit_file(begin, kind):
    """Each use of the key is one event on either side, in the same order, refused ones too."""
    harness, trail = begin(kind)
    since = harness.vault.audit_file.stat().st_size
    use(trail, harness)
    told, written = trail.calls(), written_by_openbao(harness, since)
    assert {operation for operation, _ in written} == {
        "wrap",
        "unwrap",
        *(("rewrap",) if kind.derived else ()),
    }
    for (operation, request_id), (used, ids) in zip(told, written, strict=True):
        assert operation in (used, "rewrap")  # which can be an unwrap and a wrap
        assert request_id in ids


def test_events_carry_the_request_reasons_of_google_clouds_log(begin):
    """As Cloud Audit Logs show them."""
    harness, trail = begin(GcpHarness)
    use(trail, harness)
    log = harness.emulator.log(harness.key("first"))
    reasons = [each["reason"] for each in log if each["method"] in ("Encrypt", "Decrypt")]
    # Sorted, because `decrypt_many` makes its calls side by side.
    assert sorted(request_id for _, request_id in trail.calls()) == sorted(reasons)


def test_probes_of_doctor_can_be_told_in_openbaos_audit_file(begin):
    """By the request ids that it prints."""
    harness, trail = begin(DerivedVaultHarness)
    since = harness.vault.audit_file.stat().st_size
    (key,) = json.loads(trail.command("--profile", "decrypt-only", "doctor", "--json").stdout)["keys"]
    written = written_by_openbao(harness, since)
    for operation in USES.values():
        (ids,) = (ids for used, ids in written if used == operation)
        assert key[operation]["request_id"] in ids
