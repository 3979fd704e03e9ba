"""Ten thousand random messages of kinds 0 and 3 each way between the library and the second reader and writer."""

from tests.vectors import reader, writer
from tests.vectors.casebook import APP, FOREIGN, KEY_FILE, OTHER
from tests.vectors.random_messages import Case, open_cipher, read, some_contexts, written

MESSAGES = 10_000
KEYS = ("app", "other")


def test_the_second_reader_reads_what_the_library_writes(tmp_path, torture):
    """Whole, as text, in batches and as streams; each is of the kind that the document says."""
    rng = torture.rng("library to reader")
    contexts, kinds = some_contexts(rng, 100), []
    with open_cipher(tmp_path) as cipher:
        for _ in range(MESSAGES):
            case = Case(rng, contexts)
            message, compact = written(cipher, case, rng)
            message = reader.dearmor(message) if isinstance(message, str) else message
            assert reader.decrypt(message, KEY_FILE, KEYS, case.context, case.aad) == case.payload
            assert message[5] == (reader.INLINE_COMPACT if compact else reader.INLINE)
            kinds.append(message[5])
    assert min(kinds.count(reader.INLINE), kinds.count(reader.INLINE_COMPACT)) > MESSAGES / 10


def test_the_library_reads_what_the_second_writer_writes(tmp_path, torture):
    """Of both kinds under the same data keys, for one or several recipients of which any may be ours."""
    rng = torture.rng("writer to library")
    contexts, headers = some_contexts(rng, 100), {}
    with open_cipher(tmp_path) as cipher:
        for _ in range(MESSAGES):
            case = Case(rng, contexts)
            place = contexts.index(case.context), rng.randrange(2)
            data_key, entries = headers.get(place) or headers.setdefault(place, wrapped(rng, case.context))
            bound = (case.payload, case.context, case.aad, entries, data_key)
            if rng.random() < 0.5 or len(case.payload) > 65536:
                message = writer.chunked(*bound, rng.randbytes(24))
            else:
                message = writer.compact(*bound, rng.randbytes(24))
            given = writer.armored(message) if case.is_text and rng.random() < 0.5 else message
            assert read(cipher, given, case, rng) == case.payload


def wrapped(rng, context):
    """A data key, and recipients that have it, in any order."""
    data_key, pairs = rng.randbytes(32), {**context, "kmsbridge": "dek"}
    ours = rng.choice(([(APP, "1")], [(APP, "2")], [(OTHER, "1")], [(APP, "2"), (OTHER, "1")]))
    entries = [
        writer.entry(
            key_id, version, writer.wrap(KEY_FILE, key_id, version, data_key, pairs, rng.randbytes(24))
        )
        for key_id, version in ours
    ]
    entries += [FOREIGN] * rng.randrange(2)
    rng.shuffle(entries)
    return data_key, entries
