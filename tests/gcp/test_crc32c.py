"""The checksum is the one that Cloud KMS uses."""

import pytest
from kmsbridge_gcp.crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0x00000000),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
    ids=["nothing", "check value", "zeros", "ones", "ascending", "descending"],
)
def test_published_vectors_hold(data, checksum):
    """RFC 3720, appendix B.4, and the check value of CRC-32C."""
    assert crc32c(data) == checksum
