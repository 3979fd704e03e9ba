"""The `memory` driver: keys for one run of a program, for data that must not outlive it."""

from kmsbridge.drivers.memory.driver import MemoryDriver

__all__ = ["MemoryDriver"]
