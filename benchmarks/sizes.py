"""How much work the measurements do."""

from __future__ import annotations

import dataclasses
import json

MIB = 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Processes and rounds are repetitions; the rest is the work itself."""

    message_processes: int
    message_rounds: int
    batch_seconds: float
    """About how long one call's batch in one round takes."""
    file_bytes: int
    file_processes: int
    file_rounds: int
    reads: int
    starts: int
    """Fresh interpreters for each import of kmsbridge; a fifth as many for the slower peers."""
    peer_processes: int
    peer_message_rounds: int
    peer_bytes: int
    peer_rounds: int
    shared_messages: int
    shared_rounds: int
    rows: int
    """In a flush of SQLAlchemy."""

    def to_json(self) -> str:
        """For a worker's command line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Sizes:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


FULL = Sizes(
    message_processes=11,
    message_rounds=50,
    batch_seconds=0.002,
    file_bytes=1024 * MIB,
    file_processes=3,
    file_rounds=4,
    reads=10_000,
    starts=25,
    peer_processes=3,
    peer_message_rounds=20,
    peer_bytes=64 * MIB,
    peer_rounds=2,
    shared_messages=20_000,
    shared_rounds=7,
    rows=10_000,
)

QUICK = Sizes(
    message_processes=3,
    message_rounds=20,
    batch_seconds=0.002,
    file_bytes=128 * MIB,
    file_processes=1,
    file_rounds=3,
    reads=1_000,
    starts=9,
    peer_processes=1,
    peer_message_rounds=5,
    peer_bytes=8 * MIB,
    peer_rounds=1,
    shared_messages=5_000,
    shared_rounds=3,
    rows=2_000,
)

# Not to measure anything: to see that every measurement still runs.
TINY = Sizes(
    message_processes=1,
    message_rounds=1,
    batch_seconds=0.00001,
    file_bytes=3 * MIB // 2,
    file_processes=1,
    file_rounds=1,
    reads=5,
    starts=1,
    peer_processes=1,
    peer_message_rounds=1,
    peer_bytes=MIB // 2,
    peer_rounds=1,
    shared_messages=10,
    shared_rounds=1,
    rows=20,
)
