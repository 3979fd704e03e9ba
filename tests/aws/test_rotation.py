"""A key is rotated at most once by one `rotate`, whatever becomes of the answer."""

import json

import pytest
from kmsbridge_testing.contract.base import Keys, driver_of

from kmsbridge.driver import DriverError, ErrorKind
from kmsbridge.errors import KmsUnavailable


@pytest.fixture
def driver(harness, end):
    driver = driver_of(harness.address("first"))
    end.callback(driver.close)
    return driver


def material(harness):
    """The key's current key material, which is another after each rotation."""
    return harness.kms.describe_key(KeyId=harness.arn("first"))["KeyMetadata"]["CurrentKeyMaterialId"]


def sent(harness):
    return harness.front.counts["RotateKeyOnDemand", harness.arn("first")]


@pytest.mark.parametrize("hang", [False, True], ids=["closed", "hanging"])
def test_rotation_whose_answer_is_lost_is_done(harness, driver, hang):
    """A look at the key tells that it was rotated."""
    before = material(harness)
    harness.front.lose("RotateKeyOnDemand", hang=hang)
    driver.rotate(timeout=1.5)
    assert sent(harness) == 1
    assert material(harness) != before


def test_rotation_that_nobody_can_tell_of_says_how_to_find_out(harness, end):
    """If the key cannot be looked at either, the error does not advise to repeat it."""
    key = Keys(harness, end).open()
    actions = ("RotateKeyOnDemand", "GetKeyRotationStatus", "DescribeKey")
    counts = harness.front.counts
    answer = harness.front.answer

    def vanish(body, headers):
        status, content, request_id = answer(body, headers)
        return (
            (0, b"", "")
            if counts["RotateKeyOnDemand", harness.arn("first")]
            else (status, content, request_id)
        )

    harness.front.answer = vanish
    with pytest.raises(KmsUnavailable, match="list-key-rotations") as caught:
        key.rotate()
    assert "may be repeated" not in str(caught.value)
    assert sent(harness) == 1
    assert all(counts[action, harness.arn("first")] for action in actions)


def unsure(harness, driver):
    """A rotation after which neither the answer nor a look at the key arrived."""
    harness.front.lose("RotateKeyOnDemand")
    look, driver._rotation._has_rotated = driver._rotation._has_rotated, lambda *_: False
    with pytest.raises(DriverError) as caught:
        driver.rotate(timeout=5)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    driver._rotation._has_rotated = look
    harness.front.heal()


def test_repeated_rotation_finds_that_the_first_was_done(harness, driver):
    """One request is all that AWS sees of the two."""
    unsure(harness, driver)
    driver.rotate(timeout=5)
    assert sent(harness) == 1
    driver.rotate(timeout=5)
    assert sent(harness) == 2


def test_look_without_permission_does_not_show_a_rotation(harness, driver):
    """An unknown key material is not another one: the key is rotated, and not called rotated."""
    unsure(harness, driver)
    before = material(harness)
    refusal = b'{"__type": "AccessDeniedException"}'
    answering(harness, "DescribeKey", lambda told: (400, refusal, told[2]))
    driver.rotate(timeout=5)
    assert sent(harness) == 2
    assert material(harness) != before


def answering(harness, action, change):
    """Have the front change the answers to an action."""
    answer = harness.front.answer

    def changed(body, headers):
        told = answer(body, headers)
        return change(told) if headers.get("x-amz-target", "").endswith(f".{action}") else told

    harness.front.answer = changed


def test_conflict_after_an_own_lost_attempt_means_done(harness, driver):
    """The rotation in progress is the one that was asked for. Without such an attempt the conflict is reported."""
    refusal = b'{"__type": "ConflictException", "message": "in progress"}'
    unsure(harness, driver)
    old = driver._rotation._before_lost
    answering(harness, "DescribeKey", lambda told: (*told[:1], _with_material(told[1], old), told[2]))
    answering(harness, "RotateKeyOnDemand", lambda told: (400, refusal, told[2]))
    driver.rotate(timeout=5)
    with pytest.raises(Exception, match="ConflictException"):
        driver.rotate(timeout=5)


def _with_material(body, old):
    answer = json.loads(body)
    answer["KeyMetadata"]["CurrentKeyMaterialId"] = old
    return json.dumps(answer).encode()


def test_rotation_in_progress_is_not_started_again(harness, driver):
    """As AWS tells it in GetKeyRotationStatus."""
    status = b'{"KeyRotationEnabled": false, "OnDemandRotationStartDate": 1700000000}'
    answering(harness, "GetKeyRotationStatus", lambda told: (200, status, told[2]))
    driver.rotate(timeout=5)
    assert sent(harness) == 0


def test_rotation_needs_no_permission_to_look(harness, end):
    """A caller that may rotate and nothing else rotates."""
    harness.front.allow("AKIAROTATOR", ("RotateKeyOnDemand",))
    driver = driver_of(harness.at(harness.arn("first"), access_key_id="AKIAROTATOR"))
    end.callback(driver.close)
    before = material(harness)
    driver.rotate(timeout=5)
    assert material(harness) != before
