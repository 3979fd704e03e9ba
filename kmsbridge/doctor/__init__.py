"""Finds out what this host may do with the keys of a profile, by trying it. `kmsbridge doctor` prints the report.

Nothing is printed here, and errors of keys are not raised: they are part of the report.
"""

from kmsbridge.doctor.checks import check_keys
from kmsbridge.doctor.counting import MessageCount, count_messages
from kmsbridge.doctor.report import Expectation, KeyReport, Report
from kmsbridge.keys.trials import Trial

__all__ = [
    "Expectation",
    "KeyReport",
    "MessageCount",
    "Report",
    "Trial",
    "check_keys",
    "count_messages",
]
