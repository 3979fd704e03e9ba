"""Looks for keys in another process's memory, from outside."""

import base64
import re

_WORD = 8


def spellings(key):
    """The forms in which a key is looked for: raw, hex in both cases, and base64 at each of its three alignments."""
    forms = {"raw": key, "hex": key.hex().encode(), "HEX": key.hex().upper().encode()}
    for shift in range(3):
        # The characters at both ends depend on what stands beside the key.
        text = base64.b64encode(bytes(shift) + key + bytes(-(shift + len(key)) % 3))
        first = (shift * 8 + 5) // 6
        forms[f"base64+{shift}"] = text[first : first + (len(key) * 8 - (first * 6 - shift * 8)) // 6]
    return forms


def memory_of(process, rights="rw"):
    """Yield each region of a process's memory that it has these rights to: its line in `maps`, and its bytes."""
    with (
        open(f"/proc/{process}/maps", encoding="utf-8") as maps,
        open(f"/proc/{process}/mem", "rb", 0) as memory,
    ):
        for line in maps:
            start, end, granted = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line).groups()
            if rights not in granted or "[v" in line:  # those are the kernel's own
                continue
            memory.seek(int(start, 16))
            try:
                data = memory.read(int(end, 16) - int(start, 16))
            except OSError:  # a page beyond the end of a mapped file
                continue
            yield line, data


def found(process, keys):
    """Return where each of `keys`, a mapping of names to bytes, is in a process's memory: name -> set of places.

    All of them are looked for at once: of every spelling, one of eight words lies at a multiple of eight bytes,
    whatever its own address.
    """
    wanted = {}
    for name, key in keys.items():
        for form, text in spellings(key).items():
            for start in range(_WORD):
                word = int.from_bytes(text[start : start + _WORD], "little")
                wanted.setdefault(word, []).append((name, form, text))
    words, places = frozenset(wanted), {}
    for region, data in memory_of(process):
        for word in words.intersection(memoryview(data).cast("Q")):
            for name, form, text in wanted[word]:
                if text in data:
                    where = region.split()[-1] if len(region.split()) > 5 else "anonymous"
                    places.setdefault(name, set()).add((form, where))
    return places
