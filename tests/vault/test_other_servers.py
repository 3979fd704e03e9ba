"""Servers that the tests have none of, played by a front before OpenBao: Vault before 1.13, a secondary for disaster
recovery, a standby that lags, and one that fails over batches.
"""

import base64

import pytest
from click.testing import CliRunner
from kmsbridge_testing.contract.base import bound
from kmsbridge_vault.failures import VaultFailure

from kmsbridge import EnvelopeCipher
from kmsbridge import message as wire
from kmsbridge.cli.app import app
from kmsbridge.driver import ErrorKind, WrappedKey
from kmsbridge.errors import AuthenticationError, KmsInvalidRequest, KmsUnavailable
from localstack.vault_front import BrokenBatches, RecoverySecondary, StaleStandby, Vault112
from tests.support import with_recipients
from tests.vault.stub import Stub

CONTEXT = {"tenant": "acme"}


@pytest.fixture
def root(vault):
    """The options of a caller that may do everything."""
    return {"auth": {"method": "token", "token": vault.token, "renew": False}}


# --- Vault before 1.13 ----------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["warns", "silent"])
def old_vault(vault, request):
    """Vault 1.12, and one that does not warn."""
    with Vault112(vault.address) as front:
        front.warns = request.param
        yield front


def test_server_that_ignores_associated_data_gets_no_data_key_to_keep(old_vault, vault, root, open_key):
    """One item or many: what it wraps would open in any context."""
    name = vault.key()
    for wrap in (lambda key: key.wrap(b"x", bound()), lambda key: key.wrap_many([(b"x", bound())] * 3)):
        with pytest.raises(KmsInvalidRequest) as caught:
            wrap(open_key(old_vault, name, **root))
        assert caught.value.provider_code == "associated-data-ignored"
        assert "1.13" in caught.value.remedy


def test_direct_message_does_not_open_in_any_context(old_vault, vault, root):
    """As it did where nothing bound it."""
    name = vault.key()
    plain = vault.ask("POST", f"transit/encrypt/{name}", {"plaintext": "AAAA"})["data"]["ciphertext"]
    options = {"address": old_vault.address, **root, "direct": True}
    with EnvelopeCipher.from_uri(f"vault-transit://transit/{name}", **options) as cipher:
        key = cipher._session.keys[next(iter(cipher._session.keys))]
        for unwrap in (
            lambda wrapped: key.unwrap(wrapped, bound()),
            lambda wrapped: key.unwrap_many([(wrapped, bound())] * 2),
        ):
            with pytest.raises(KmsInvalidRequest) as caught:
                unwrap(WrappedKey(key.key_id, "1", plain.encode()))
            assert caught.value.provider_code == "associated-data-ignored"


def test_server_replaced_by_an_older_one_is_noticed_by_its_warning(vault, root, open_driver):
    """After it has shown once that it binds the context."""
    with Vault112(vault.address) as front:
        driver = open_driver(front, vault.key(), **root)
        driver._binds = True
        with pytest.raises(VaultFailure) as caught:
            driver.wrap(b"x", bound(), timeout=10)
    assert caught.value.code == "associated-data-ignored"


def test_proof_costs_no_request_and_is_made_once(vault, root, open_driver):
    """It stands beside the first item, and refusals of that one keep their reasons."""
    with StaleStandby(vault.address, 0) as front:
        driver = open_driver(front, vault.key(), instance="front", **root)
        wrapped = [driver.wrap(b"x", bound(), timeout=10) for _ in range(2)]
        assert [driver.unwrap(each, bound(), timeout=10) for each in wrapped] == [b"x", b"x"]
    assert ["batch_input" in each.body for each in front.heard] == [True, False, False, False]


def test_derived_key_works_on_an_older_server(vault, root, open_key, works):
    """Its context is bound by derivation."""
    with Vault112(vault.address) as front:
        assert works(open_key(front, vault.key(derived=True), derived=True, **root))


@pytest.mark.parametrize("role", ["both", "decrypt-only"])
def test_doctor_says_that_the_server_ignores_associated_data(vault, role, tmp_path, write, policies):
    """With the version that does not; a host that may only decrypt finds out with a message."""
    name = vault.key()
    roles = ("encryptor", "decryptor") if role == "both" else ("decryptor",)
    token = vault.new_token(*policies(vault, name, *roles))
    plain = vault.ask("POST", f"transit/encrypt/{name}", {"plaintext": "A" * 43 + "="})["data"]["ciphertext"]
    uri = f"vault-transit://transit/{name}"
    with EnvelopeCipher.from_uri(
        uri, address=vault.address, auth={"method": "token", "token": vault.token}
    ) as cipher:
        message = cipher.encrypt(b"x")
    (recipient,) = wire.parse(message).recipients
    file = tmp_path / "message.kmsb"
    file.write_bytes(with_recipients(message, recipient._replace(wrapped=plain.encode())))
    with Vault112(vault.address) as front:
        configuration = write(
            "kmsbridge.toml",
            f"""
[keys.app]
uri = "{uri}"
address = "{front.address}"
auth = {{ method = "token", token = "{token}" }}
[profiles.test]
decrypt_with = ["app"]
{'encrypt_to = ["app"]' if role == "both" else ""}
""",
        )
        more = [] if role == "both" else ["--message", str(file)]
        told = CliRunner().invoke(app, ["--config", str(configuration), "doctor", *more]).output
    assert "associated-data-ignored" in told
    assert "1.13" in told


# --- a secondary for disaster recovery --------------------------------------------------------------


def test_secondary_for_disaster_recovery_is_an_outage(vault, root, open_key):
    """Not an invalid request, after which no other key would be tried."""
    with RecoverySecondary(vault.address) as front:
        keys = [open_key(front, "app", **root, **options) for options in ({}, {"instance": "eu"})]
        for key in keys:
            with pytest.raises(KmsUnavailable):
                key.wrap(b"x", bound())
        wrapped = WrappedKey("vault-transit:eu::transit/app", "1", b"vault:v1:" + b"A" * 80)
        with pytest.raises(KmsUnavailable) as caught:
            keys[-1].unwrap(wrapped, bound())
    assert caught.value.provider_code == "dr-secondary"


def test_login_at_a_secondary_for_disaster_recovery_is_an_outage(vault, open_key):
    """Not a refusal of this host's credentials, which is not repeated."""
    with RecoverySecondary(vault.address) as front:
        auth = {"method": "userpass", "username": "web", "password": "p"}
        with pytest.raises(KmsUnavailable):
            open_key(front, "app", instance="eu", auth=auth).wrap(b"x", bound())


# --- a standby that lags ----------------------------------------------------------------------------


def rotated(vault, name):
    """A wrapped key of the version that was made a moment ago."""
    vault.ask("POST", f"transit/keys/{name}/rotate")
    bound_to = {"plaintext": "AAAA", "associated_data": base64.b64encode(bound().canonical()).decode()}
    text = vault.ask("POST", f"transit/encrypt/{name}", bound_to)["data"]["ciphertext"]
    assert text.startswith("vault:v2:")
    return WrappedKey("vault-transit:eu::transit/x", "2", text.encode())


def test_version_that_a_standby_does_not_know_yet_is_asked_for_again(vault, root, open_key):
    """It is no forgery, which would be remembered as one."""
    name = vault.key()
    wrapped = rotated(vault, name)
    with StaleStandby(vault.address, 1) as front:
        assert open_key(front, name, instance="eu", **root).unwrap(wrapped, bound()) == bytes(3)
    with StaleStandby(vault.address, 100) as front:
        with pytest.raises(KmsUnavailable) as caught:
            open_key(front, name, instance="eu", **root).unwrap(wrapped, bound())
        assert caught.value.provider_code == "version-too-new"


def test_version_that_a_standby_does_not_know_yet_in_a_batch(vault, root, open_driver):
    """The items are asked for again, each alone."""
    name = vault.key()
    wrapped = rotated(vault, name)
    with StaleStandby(vault.address, 1) as front:
        driver = open_driver(front, name, instance="eu", **root)
        assert driver.unwrap_many([(wrapped, bound())] * 3, timeout=10) == [bytes(3)] * 3


def test_version_that_no_server_can_have_yet_is_a_forgery(vault, root, open_key, policies):
    """Where the token may read the key; else nobody could tell."""
    name = vault.key()
    wrapped = rotated(vault, name)
    labelled = [
        wrapped._replace(ciphertext=wrapped.ciphertext.replace(b"v2", each)) for each in (b"v3", b"v4")
    ]
    for forged, error in zip(labelled, (KmsUnavailable, AuthenticationError), strict=True):
        with pytest.raises(error):
            open_key(vault, name, **root).unwrap(forged, bound())
    token = vault.new_token(*policies(vault, name, "decryptor"))
    with pytest.raises(KmsUnavailable):
        open_key(vault, name, auth={"method": "token", "token": token}).unwrap(labelled[-1], bound())


# --- batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502])
def test_batch_over_which_the_server_fails_is_repeated_item_by_item(vault, root, open_driver, status):
    """One bad item must not lose the others."""
    with BrokenBatches(vault.address, status) as front:
        driver = open_driver(front, vault.key(), **root)
        driver._binds = True
        items = [(bytes([n]), bound()) for n in range(5)]
        wrapped = driver.wrap_many(items, timeout=10)
        bad = wrapped[2]._replace(ciphertext=wrapped[2].ciphertext[:-8] + b"AAAAAAA=")
        results = driver.unwrap_many([(each, bound()) for each in (*wrapped, bad)], timeout=10)
    assert results == [bytes([n]) for n in range(5)] + [ErrorKind.NOT_AUTHENTIC]


def test_server_that_is_away_is_not_asked_for_every_item(vault, root, open_driver):
    """Two alone are enough to know."""
    with Stub(500, {"errors": ["internal error"]}) as stub:
        driver = open_driver(stub, "app", instance="stub", **root)
        with pytest.raises(VaultFailure) as caught:
            driver.wrap_many([(b"x", bound())] * 200, timeout=10)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert len(stub.heard) == 3


def test_item_with_an_unknown_failure_is_sent_alone(vault, root, open_driver):
    """Its own answer tells more."""

    class Vague(Vault112):
        """A server that explains nothing in batches."""

        def answer(self, request):
            answer = self.forward(request)
            if "batch_input" in request.body:
                answer.body["data"]["batch_results"][0] = {"error": "something went wrong"}
            return answer

    with Vague(vault.address) as front:
        driver = open_driver(front, vault.key(), **root)
        wrapped = driver.wrap_many([(b"1", bound()), (b"2", bound())], timeout=10)
        assert driver.unwrap_many([(each, bound()) for each in wrapped], timeout=10) == [b"1", b"2"]
