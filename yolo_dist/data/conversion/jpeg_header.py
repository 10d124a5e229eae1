"""The size of an ordinary JPEG from its header, for speed; whatever is unusual is left to a whole parser.

ITU-T T.81, annex B: segments begin with 0xFF and a code, all but a few have a length of two bytes.
"""

_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAMES = frozenset([0xC0, 0xC1, 0xC2])  # sequential and progressive; hardly anything decodes the others
_APPLICATION_AND_TABLES = frozenset([*range(0xE0, 0xF0), 0xC4, 0xDB, 0xDD, 0xFE])
_COMPONENTS = (1, 3)
_APP2, _MULTI_PICTURE = 0xE2, b"MPF\0"


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) of the stored pixels; None if this is no JPEG, or one that needs a closer look."""
    if data[:2] != _START or data[-2:] != _END:
        return None
    position, limit = 2, len(data) - 9
    while position < limit and data[position] == 0xFF:
        code, length = data[position + 1], data[position + 2] << 8 | data[position + 3]
        if code in _FRAMES:
            height = data[position + 5] << 8 | data[position + 6]
            width = data[position + 7] << 8 | data[position + 8]
            known = data[position + 4] == 8 and data[position + 9] in _COMPONENTS
            return (width, height) if known and width and height else None
        several = code == _APP2 and data[position + 4 : position + 8] == _MULTI_PICTURE
        if several or code not in _APPLICATION_AND_TABLES:
            return None
        position += 2 + length
    return None
