"""An emulator of Google Cloud KMS for tests: `python -m kmsbridge_gcp_emulator`, or `Emulator.start()`.

It keeps its keys in memory and protects nothing.
"""

from kmsbridge_gcp_emulator.process import Emulator

__all__ = ["Emulator"]
