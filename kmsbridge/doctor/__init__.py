"""What this host may do with the keys of a profile, measured by doing it. `kmsbridge doctor` shows it.

Nothing is printed, and no error of a key is raised: it is part of the report.
"""

from kmsbridge.doctor.examination import examine
from kmsbridge.doctor.report import Expectation, KeyReport, Report, Trial

__all__ = ["Expectation", "KeyReport", "Report", "Trial", "examine"]
