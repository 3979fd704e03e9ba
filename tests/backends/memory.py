"""Keys in the memory of this process."""

import itertools

from kmsbridge.testing import Harness, KeyAddress

_numbers = itertools.count(1)


class MemoryHarness(Harness):
    """Two keys of names that nothing else uses."""

    cannot = {
        "roles": "the process that has the key can both wrap and unwrap",
        "named": "a name that no key has yet makes one",
        "rotate": "a run of a program has one key of a name",
        "disable": "the key is usable as long as the process lives",
        "schedule_deletion": "the key is usable as long as the process lives",
        "delete": "the key is usable as long as the process lives",
        "expire_credentials": "it takes no credentials",
        "break_network": "there is no network to this process's memory",
        "misdirected": "there is no network to this process's memory",
        "calls": "memory does not count its readers",
        "fresh_process": "another process has other keys, on purpose",
        "sdk": "it takes none",
        "secrets": "there are no options",
    }

    def __init__(self):
        self._run = next(_numbers)

    def address(self, which, role="both"):
        return KeyAddress(f"memory:{which}-{self._run}")
