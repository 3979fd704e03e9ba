"""The AWS Encryption SDK and Tink with local keys, on the work that kmsbridge does beside them."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import keys
from benchmarks.files import make_source
from benchmarks.report import Line
from benchmarks.sizes import MIB, Sizes
from benchmarks.workers import Values, interleave, middle, ratio
from kmsbridge import EnvelopeCipher

LENGTHS = (64, 100, 4096, 65536)
PACKAGES = {"aws_encryption_sdk": "AWS Encryption SDK", "tink": "Tink"}
OURS = "kmsbridge"
STEP = MIB

Seal = Callable[[bytes], bytes]
Files = Callable[[str, str], object]


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to protect bytes; `seal_file` is None where it has no other than the whole in memory."""

    name: str
    seal: Seal | None
    open: Seal | None
    seal_file: Files | None = None
    open_file: Files | None = None


def missing() -> list[str]:
    """The names of the libraries that are not installed."""
    return [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]


def kmsbridge_ways(folder: str) -> Iterator[Peer]:
    """With a cached data key, and with one for each message, as the others work."""
    uri = keys.uri(folder)
    cipher = EnvelopeCipher.from_uri(uri)
    yield Peer(OURS, cipher.encrypt, cipher.decrypt, cipher.encrypt_file, cipher.decrypt_file)
    single = EnvelopeCipher.from_uri(uri, data_keys={"max_messages": 1})
    yield Peer(f"{OURS}, a data key for each message", single.encrypt, single.decrypt)


def aws_ways() -> Iterator[Peer]:
    """With a raw AES key: the default suite, which signs, and the committing one that does not."""
    import aws_encryption_sdk
    from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
    from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
    from aws_cryptographic_material_providers.mpl.models import AesWrappingAlg, CreateRawAesKeyringInput
    from aws_encryption_sdk.identifiers import Algorithm

    materials = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
    key = materials.create_raw_aes_keyring(
        input=CreateRawAesKeyringInput(
            key_namespace="bench",
            key_name="bench",
            wrapping_key=os.urandom(32),
            wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16,
        )
    )
    client = aws_encryption_sdk.EncryptionSDKClient()
    unsigned = {"algorithm": Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY, "frame_length": 65536}
    yield _aws_way("AWS Encryption SDK, default", client, key, {})
    yield _aws_way("AWS Encryption SDK, unsigned, 64 KiB frames", client, key, unsigned)


def _aws_way(name: str, client: Any, key: Any, options: dict[str, Any]) -> Peer:
    def seal(plaintext: bytes) -> bytes:
        message: bytes = client.encrypt(source=plaintext, keyring=key, **options)[0]
        return message

    def unseal(message: bytes) -> bytes:
        plaintext: bytes = client.decrypt(source=message, keyring=key)[0]
        return plaintext

    def file(mode: str, options: dict[str, Any], source: str, target: str) -> None:
        with (
            open(source, "rb") as reader,
            open(target, "wb") as writer,
            client.stream(mode=mode, source=reader, keyring=key, **options) as stream,
        ):
            _copy(stream, writer)

    return Peer(name, seal, unseal, partial(file, "e", options), partial(file, "d", {}))


def tink_ways() -> Iterator[Peer]:
    """An envelope whose key service is a local AES-256-GCM key; a streaming key with 1 MiB segments."""
    import tink
    from tink import aead, streaming_aead

    aead.register()
    streaming_aead.register()
    gcm = aead.aead_key_templates.AES256_GCM
    service = tink.new_keyset_handle(gcm).primitive(aead.Aead)
    envelope = aead.KmsEnvelopeAead(gcm, service)
    yield Peer("Tink, envelope", lambda p: envelope.encrypt(p, b""), lambda m: envelope.decrypt(m, b""))
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    streaming = tink.new_keyset_handle(template).primitive(streaming_aead.StreamingAead)
    yield Peer(
        "Tink, streaming",
        None,
        None,
        lambda source, target: _tink_seal(streaming, source, target),
        lambda source, target: _tink_open(streaming, source, target),
    )


def _tink_seal(streaming: Any, source: str, target: str) -> None:
    with open(source, "rb") as reader, streaming.new_encrypting_stream(open(target, "wb"), b"") as writer:
        _copy(reader, writer)


def _tink_open(streaming: Any, source: str, target: str) -> None:
    with streaming.new_decrypting_stream(open(source, "rb"), b"") as reader, open(target, "wb") as writer:
        _copy(reader, writer)


def _copy(reader: Any, writer: Any) -> None:
    while data := reader.read(STEP):
        writer.write(data)


def _ways(folder: str) -> list[Peer]:
    found = list(kmsbridge_ways(folder))
    absent = missing()
    for name, ways in (("AWS Encryption SDK", aws_ways), ("Tink", tink_ways)):
        if name not in absent:
            found += ways()
    return found


def worker(sizes: Sizes, folder: str) -> Values:
    """CPU seconds a message, seconds a file, by `way / work / direction`."""
    ways = _ways(folder)
    values: Values = {}
    for length in LENGTHS:
        calls = _calls(ways, os.urandom(length), f"{length} bytes")
        values |= interleave(calls, sizes.peer_message_rounds, sizes.batch_seconds)
    ways = [way for way in ways if not way.name.startswith(f"{OURS},")]  # one data key is nothing beside this
    whole = _calls(ways, os.urandom(sizes.peer_bytes), "in memory")
    values |= _take_turns(whole, sizes.peer_rounds)
    return values | _take_turns(_file_calls(ways, folder, sizes.peer_bytes), sizes.peer_rounds)


def _calls(ways: list[Peer], plaintext: bytes, work: str) -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {}
    for way in ways:
        if way.seal and way.open:
            message = way.seal(plaintext)
            assert way.open(message) == plaintext, way.name
            calls[f"{way.name} / {work} / encrypt"] = partial(way.seal, plaintext)
            calls[f"{way.name} / {work} / decrypt"] = partial(way.open, message)
    return calls


def _file_calls(ways: list[Peer], folder: str, size: int) -> dict[str, Callable[[], object]]:
    source = os.path.join(folder, "peer-source")
    make_source(source, size)
    calls: dict[str, Callable[[], object]] = {}
    for number, way in enumerate(ways):
        if way.seal_file and way.open_file:
            sealed, opened = (os.path.join(folder, f"peer-{kind}-{number}") for kind in ("sealed", "opened"))
            calls[f"{way.name} / file to file / encrypt"] = partial(way.seal_file, source, sealed)
            calls[f"{way.name} / file to file / decrypt"] = partial(way.open_file, sealed, opened)
    return calls


def _take_turns(calls: dict[str, Callable[[], object]], rounds: int) -> Values:
    values: Values = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            values[name].append(time.perf_counter() - start)
    return values


def lines(runs: list[Values], sizes: Sizes) -> list[Line]:
    """The table's lines, each way's ratio being to kmsbridge."""
    found = []
    works = [f"{length} bytes" for length in LENGTHS] + ["in memory", "file to file"]
    for work in works:
        large = work in works[-2:]
        part = f"{sizes.peer_bytes / MIB:g} MiB {work}" if large else f"{work}, CPU time, ratio to {OURS}"
        size = sizes.peer_bytes if large else 0
        names = sorted(runs[0], key=lambda name: name.endswith("decrypt"))
        found += [_line(part, runs, name, size) for name in names if f" / {work} / " in name]
    return found


def _line(part: str, runs: list[Values], name: str, size: int) -> Line:
    """As MB/s where `size` is given; microseconds otherwise."""
    way, work, direction = name.split(" / ")
    label = f"{direction}, {way}"
    times, seconds = ratio(runs, name, f"{OURS} / {work} / {direction}"), middle(runs, name)
    limit = None if way.startswith(OURS) else 1.0  # none of them is faster
    if size:
        return Line(part, label, size / 1e6 / seconds, "MB/s", ratio=1 / times, limit=limit)
    return Line(part, label, seconds * 1e6, "us", ratio=times, limit=limit, at_least=True)
