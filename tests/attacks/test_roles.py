"""Attackers in the place of each host get exactly the values that follow from the settings: no more, and no fewer."""

import tempfile
from pathlib import Path

import pytest

from examples.roles import scenarios
from examples.roles.deployment import BACKENDS, Deployment, can_change_users
from examples.roles.scenarios import SCENARIOS, Opens
from examples.roles.stage import Stage, TooSlow
from tests.backends.vault import Vault

ROOT = Path(__file__).parents[2]
MAX_AGES = (3.0, 6.0, 12.0)
"""Seconds that data keys live: on a machine that is too busy for one, the next is tried."""


def scores(max_age):
    """Return the result of each attacker on each backend."""
    with (
        tempfile.TemporaryDirectory(prefix="kmsbridge-roles-") as folder,
        Deployment(Path(folder), Vault(), max_age=max_age, users=can_change_users()) as deployment,
    ):
        deployment.start()
        stage = Stage(deployment)
        stage.play()
        return [scenarios.play(each, stage, backend) for each in SCENARIOS for backend in BACKENDS]


def test_every_attacker_opens_exactly_the_values_that_are_predicted(record_property):
    for max_age in MAX_AGES:
        try:
            results = scores(max_age)
            break
        except TooSlow:
            continue
    else:
        pytest.fail("the machine is too busy")
    played = {(each.scenario.attacker, each.backend): each for each in results if not each.left_out}
    record_property("left out", sorted({each.scenario.attacker for each in results if each.left_out}))
    opened = {name: sorted(each.opened) for name, each in played.items()}
    assert opened == {name: sorted(each.predicted) for name, each in played.items()}


def test_with_each_backend_an_attacker_opens_all():
    """Else the scores could be those of attackers who cannot attack."""
    assert len(SCENARIOS) >= 12
    for backend in BACKENDS:
        assert [each for each in SCENARIOS if each.opens[backend] is Opens.ALL]


def test_only_root_needs_root():
    """As an ordinary user, all but one scenario are played."""
    assert [each.attacker for each in SCENARIOS if each.needs_root] == [
        "is root on the web server, hardened or not"
    ]


def test_the_page_has_these_attackers():
    assert scenarios.table() in (ROOT / "docs/how-to/separate-roles.md").read_text()
