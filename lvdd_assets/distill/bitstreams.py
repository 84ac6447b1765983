"""Units of AV1, HEVC and H.264 streams, and the leading bytes that the clips of a set have in common.

What belongs here: cutting a stream into its units and joining them, telling units by kind, and patterns: what the same
unit of many clips begins with. What must NOT come here: encoding or decoding a picture (`codec`), budgets.

A clip of 8 small frames at a low rate is mostly unit headers: AV1 spends some 14 B a frame on them, of which one or two
differ from clip to clip. A pattern stores the rest once for a set of clips, without knowing what the bytes mean, so it
holds for any encoder; whatever does not follow it is stored whole.

A unit is an open bitstream unit without its size field (AV1 specification, section 5.3), or a NAL unit without its
start code (ITU-T H.264 and H.265, annex B).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Codec = Literal["av1", "hevc", "h264"]
CODECS: tuple[Codec, ...] = get_args(Codec)

OBU_SEQUENCE_HEADER, OBU_TEMPORAL_DELIMITER = 1, 2
NAL_SEI = {"h264": (6,), "hevc": (39, 40)}
NAL_PARAMETERS = {"h264": (7, 8), "hevc": (32, 33, 34)}

_NAL_START = re.compile(rb"\x00*\x00\x00\x01")
# Longest beginning of a unit that is looked at: AV1's frame headers end before byte 24.
_MAX_PREFIX = 32
_SHORT, _LONG, _WHOLE = 14, 14, 15  # nibbles: below 14 a remainder's length; what follows the nibbles says the rest
_MAX_UNITS = 4096
_MAX_VARINT_BYTES = 5


def split_units(stream: bytes, codec: Codec) -> list[bytes]:
    """The units of a stream, in order.

    Raises:
        ValueError: an AV1 unit runs past the stream's end or has no size field.
    """
    if codec != "av1":
        return [unit for unit in _NAL_START.split(stream) if unit]
    units, start = [], 0
    while start < len(stream):
        num_header = 1 + (stream[start] >> 2 & 1)
        if not stream[start] & 2:
            raise ValueError(f"damaged av1 bytes: the unit at byte {start} has no size field")
        size, begin = read_varint(stream, start + num_header)
        if begin + size > len(stream):
            raise ValueError(f"damaged av1 bytes: a unit ends at byte {begin + size} of {len(stream)}")
        units.append(stream[start : start + num_header] + stream[begin : begin + size])
        start = begin + size
    return units


def join_units(units: Sequence[bytes], codec: Codec) -> bytes:
    """The stream of these units: what `split_units` takes apart. Empty units are left out."""
    if codec != "av1":
        return b"".join(b"\x00\x00\x01" + unit for unit in units if unit)
    parts = []
    for unit in filter(None, units):
        num_header = 1 + (unit[0] >> 2 & 1)
        parts.append(unit[:num_header] + write_varint(max(len(unit) - num_header, 0)) + unit[num_header:])
    return b"".join(parts)


def unit_kind(unit: bytes, codec: Codec) -> int:
    """OBU type or NAL unit type."""
    return (
        unit[0] & 31 if codec == "h264" else unit[0] >> (1 if codec == "hevc" else 3) & (63 if codec == "hevc" else 15)
    )


def write_varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first."""
    data = bytearray()
    while value >= 128:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes((*data, value))


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """A number of `write_varint` and where it ends.

    Raises:
        ValueError: the bytes end within it, or it is longer than five bytes.
    """
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if start + index >= len(data):
            raise ValueError(f"damaged bytes: a number at byte {start} runs past the end at {len(data)}")
        value |= (data[start + index] & 127) << 7 * index
        if data[start + index] < 128:
            return value, start + index + 1
    raise ValueError(f"damaged bytes: the number at byte {start} is longer than {_MAX_VARINT_BYTES} bytes")


@dataclass(frozen=True)
class Prefix:
    """How one unit of many clips begins.

    Attributes:
        values: a byte for each of its first positions; None where clips differ.
    """

    values: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.values) > _MAX_PREFIX or any(not 0 <= value < 256 for value in self.values if value is not None):
            raise ValueError(f"expected up to {_MAX_PREFIX} bytes or None, got {self.values}")

    def matches(self, unit: bytes) -> bool:
        """Whether the unit has these bytes."""
        pairs = zip(self.values, unit, strict=False)
        return len(unit) >= len(self.values) and all(value in (None, byte) for value, byte in pairs)

    def remove(self, unit: bytes) -> bytes:
        """The bytes of a matching unit that the prefix does not say."""
        free = bytes(byte for value, byte in zip(self.values, unit, strict=False) if value is None)
        return free + unit[len(self.values) :]

    def restore(self, remainder: bytes) -> bytes:
        """The unit of which `remove` left this.

        Raises:
            ValueError: fewer bytes than the prefix leaves open.
        """
        num_free = self.values.count(None)
        if len(remainder) < num_free:
            raise ValueError(f"damaged bytes: {len(remainder)} bytes of a unit whose prefix leaves {num_free} open")
        free = iter(remainder[:num_free])
        return bytes(next(free) if value is None else value for value in self.values) + remainder[num_free:]


@dataclass(frozen=True)
class Pattern:
    """How the units of a clip begin, one prefix a unit; stored once, it shortens every clip that follows it.

    A packed clip is one nibble a unit, then the remainders: 0 to 13 is a remainder's length, 14 says that the length
    comes first as a varint, 15 that the unit is whole, its length first.
    """

    prefixes: tuple[Prefix, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.prefixes) <= _MAX_UNITS:
            raise ValueError(f"a pattern has 1 to {_MAX_UNITS} units, got {len(self.prefixes)}")

    def pack(self, units: Sequence[bytes]) -> bytes:
        """The units of one clip, as many as the pattern has."""
        nibbles, body = [], []
        for prefix, unit in zip(self.prefixes, units, strict=True):
            follows = prefix.matches(unit)
            rest = prefix.remove(unit) if follows else unit
            nibble = _WHOLE if not follows else min(len(rest), _LONG)
            nibbles.append(nibble)
            body.append(rest if nibble < _SHORT else write_varint(len(rest)) + rest)
        if len(nibbles) % 2:
            nibbles.append(0)
        pairs = zip(nibbles[::2], nibbles[1::2], strict=True)
        return bytes(high << 4 | low for high, low in pairs) + b"".join(body)

    def unpack(self, data: bytes, start: int = 0) -> tuple[list[bytes], int]:
        """The units that `pack` packed, read from a place in some bytes, and where they end.

        Raises:
            ValueError: the bytes are damaged.
        """
        end_nibbles = start + (len(self.prefixes) + 1) // 2
        if len(data) < end_nibbles:
            raise ValueError(f"damaged bytes: {len(data) - start} for a clip of {len(self.prefixes)} units")
        nibbles = [half for byte in data[start:end_nibbles] for half in (byte >> 4, byte & 15)]
        units, start = [], end_nibbles
        for prefix, nibble in zip(self.prefixes, nibbles, strict=False):
            length, start = (nibble, start) if nibble < _SHORT else read_varint(data, start)
            if start + length > len(data):
                raise ValueError(f"damaged bytes: a unit ends at byte {start + length} of {len(data)}")
            rest = data[start : start + length]
            units.append(rest if nibble == _WHOLE else prefix.restore(rest))
            start += length
        return units, start

    def to_bytes(self) -> bytes:
        """One byte for the number of positions, a bit mask of the open ones, the values of the others; for each
        unit."""
        parts = [write_varint(len(self.prefixes))]
        for prefix in self.prefixes:
            mask = sum(1 << index for index, value in enumerate(prefix.values) if value is None)
            parts.append(bytes([len(prefix.values)]) + mask.to_bytes((len(prefix.values) + 7) // 8, "little"))
            parts.append(bytes(value for value in prefix.values if value is not None))
        return b"".join(parts)

    @classmethod
    def read(cls, data: bytes, start: int) -> tuple["Pattern", int]:
        """The pattern at a place in some bytes, and where it ends.

        Raises:
            ValueError: the bytes are damaged.
        """
        num_units, start = read_varint(data, start)
        if not 0 < num_units <= min(_MAX_UNITS, len(data) - start):
            raise ValueError(f"damaged bytes: a pattern of {num_units} units in {len(data) - start} bytes")
        prefixes = []
        for _ in range(num_units):
            length = data[start] if start < len(data) else 0
            num_mask = (length + 7) // 8
            mask = int.from_bytes(data[start + 1 : start + 1 + num_mask], "little")
            num_fixed = length - (mask & (1 << length) - 1).bit_count()
            end = start + 1 + num_mask + num_fixed
            if end > len(data) or length > _MAX_PREFIX or mask >> length:
                raise ValueError(f"damaged bytes: a prefix of {length} bytes at byte {start} of {len(data)}")
            fixed = iter(data[start + 1 + num_mask : end])
            prefixes.append(Prefix(tuple(None if mask >> index & 1 else next(fixed) for index in range(length))))
            start = end
        return cls(tuple(prefixes)), start


def learn_pattern(clips: Sequence[Sequence[bytes]]) -> Pattern | None:
    """The pattern that takes most bytes off a set of clips, itself counted; None where it would not pay.

    Only clips with the commonest number of units can follow it.

    Args:
        clips: the units of each clip.
    """
    if not clips:
        return None
    num_units = Counter(map(len, clips)).most_common(1)[0][0]
    same = [units for units in clips if len(units) == num_units]
    if not 0 < num_units <= _MAX_UNITS:
        return None
    pattern = Pattern(tuple(_learn_prefix(column) for column in zip(*same, strict=True)))
    before = sum(len(unit) + 1 for units in same for unit in units)
    after = sum(len(pattern.pack(units)) for units in same) + len(pattern.to_bytes())
    return pattern if after < before else None


def _learn_prefix(units: Sequence[bytes]) -> Prefix:
    """The prefix that shortens these units most.

    Positions are taken in the order of how many units have their commonest byte; after each, the units that still
    match all of them save one byte a position.
    """
    columns = []
    for position in range(min(_MAX_PREFIX, max(map(len, units)))):
        byte, count = Counter(unit[position] for unit in units if len(unit) > position).most_common(1)[0]
        columns.append((-count, position, byte))
    chosen: dict[int, int] = {}
    best, matching = (0, chosen), list(units)
    for _, position, byte in sorted(columns):
        chosen = {**chosen, position: byte}
        matching = [unit for unit in matching if len(unit) > max(chosen) and unit[position] == byte]
        saved = len(matching) * len(chosen) - len(chosen)
        if saved > best[0]:
            best = (saved, chosen)
    if not best[1]:
        return Prefix()
    return Prefix(tuple(best[1].get(position) for position in range(max(best[1]) + 1)))
