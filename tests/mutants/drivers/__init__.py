"""Drivers that are broken on purpose, each with the case of the contract that catches it.

A suite that has never failed proves little: this is what says that it fails where it must.
"""

from tests.mutants.drivers import (  # noqa: F401 - they fill MUTANTS
    batches,
    binding,
    calls,
    interruption,
    life,
    memory,
    network,
    payload,
    rewrap,
)
from tests.mutants.drivers.base import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]
