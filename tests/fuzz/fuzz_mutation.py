"""Valid files made hostile: seeded edits of their bytes, numbers, lines and words."""

import random
import re
from collections.abc import Callable, Sequence

NUMBERS = [b"0", b"-1", b"1", b"1e308", b"-1e308", b"nan", b"inf", b"2147483648", b"-9223372036854775809", b"9" * 40]
WORDS = [b"", b"\0", b"\xff\xfe", b"[", b"]", b"{", b"}", b"<", b"&", b'"', b",", b":", b"=", b"null", b"true", b"\n"]
WORDS += [b"../../etc/passwd", b"!!python/object/apply:os.system", b'<!DOCTYPE a [<!ENTITY b "b">]>', b"&b;"]
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")

Edit = Callable[[bytes, random.Random], bytes]


def mutated(examples: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the examples with one to four edits."""
    data = rng.choice(examples)
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(EDITS)(data, rng)
    return data


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 64, 1024)))


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _drop(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 2, 100)) + data[end:]


def _noise(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _end(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _insert(data: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(data))
    return data[:place] + rng.choice(WORDS) + data[place:]


def _renumber(data: bytes, rng: random.Random) -> bytes:
    found = list(NUMBER.finditer(data))
    if not found:
        return data
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(NUMBERS) + data[one.end() :]


def _swap_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) > 1:
        one, other = rng.sample(range(len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


EDITS: list[Edit] = [_flip, _drop, _repeat, _noise, _end, _insert, _renumber, _renumber, _swap_lines]
