"""Units and their common beginnings: everything comes back, whatever the bytes are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill.bitstreams import (
    CODECS,
    Pattern,
    Prefix,
    join_units,
    learn_pattern,
    read_varint,
    split_units,
    write_varint,
)

UNITS = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6)
PREFIXES = st.builds(Prefix, st.lists(st.none() | st.integers(0, 255), max_size=32).map(tuple))
PATTERNS = st.builds(Pattern, st.lists(PREFIXES, min_size=1, max_size=6).map(tuple))


def unless_damaged(read):
    """What is read, None where the bytes are said to be damaged; any other error is one."""
    try:
        return read()
    except ValueError as error:
        if "damaged" not in str(error):
            raise
        return None


@given(st.integers(0, 2**35 - 1), st.binary(max_size=3))
def test_varint(value, before):
    data = before + write_varint(value)
    assert read_varint(data + b"\xff", len(before)) == (value, len(data))


@pytest.mark.parametrize(("data", "message"), [(b"\x80", "runs past the end"), (b"\x80" * 6, "longer than 5 bytes")])
def test_varint_refuses(data, message):
    with pytest.raises(ValueError, match=message):
        read_varint(data, 0)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_open_bitstream_units_come_back(payloads):
    """Header byte with a size field and without an extension, then anything."""
    units = [b"\x32" + payload for payload in payloads]
    assert split_units(join_units(units, "av1"), "av1") == units


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_start_codes_of_three_and_four_bytes(codec):
    stream = b"\x00\x00\x00\x01\x67\x11\x00\x00\x01\x68\x22\x00\x00\x03"
    units = split_units(stream, codec)
    assert units == [b"\x67\x11", b"\x68\x22\x00\x00\x03"]
    assert split_units(join_units(units, codec), codec) == units


@given(st.binary(max_size=60), st.sampled_from(CODECS))
def test_any_bytes_split_or_are_refused(data, codec):
    units = unless_damaged(lambda: split_units(data, codec))
    assert sum(map(len, units or [])) <= len(data)


@given(PATTERNS, st.data())
def test_packed_units_come_back(pattern, data):
    """Units that follow the pattern, that nearly do, and that do not."""
    units = []
    for prefix in pattern.prefixes:
        free = data.draw(st.binary(min_size=prefix.values.count(None), max_size=45))
        units.append(data.draw(st.just(prefix.restore(free)) | st.binary(max_size=45)))
    packed = pattern.pack(units)
    assert pattern.unpack(b"??" + packed + b"?", 2) == (units, 2 + len(packed))


@given(PATTERNS, st.binary(max_size=3))
def test_patterns_come_back(pattern, before):
    data = before + pattern.to_bytes()
    assert Pattern.read(data + b"?", len(before)) == (pattern, len(data))


@given(st.binary(max_size=80), PATTERNS)
def test_damaged_bytes_are_refused_or_read(data, pattern):
    for read in (lambda: Pattern.read(data, 0)[1], lambda: pattern.unpack(data)[1]):
        assert (unless_damaged(read) or 0) <= len(data)


@settings(max_examples=50)
@given(st.lists(UNITS, max_size=8))
def test_learned_patterns_lose_nothing_and_pay(clips):
    pattern = learn_pattern(clips)
    if pattern is None:
        return
    same = [units for units in clips if len(units) == len(pattern.prefixes)]
    assert all(pattern.unpack(pattern.pack(units))[0] == units for units in same)
    assert len(pattern.to_bytes()) + sum(len(pattern.pack(units)) for units in same) < sum(
        len(unit) + 1 for units in same for unit in units
    )


def test_what_clips_share_is_learned():
    """Equal bytes but for one position, then what differs: the pattern says just that."""
    clips = [[bytes([9, 8, index, 7, 6, 5, *range(index, 2 * index)]), b"same"] for index in range(1, 21)]
    pattern = learn_pattern(clips)
    assert pattern.prefixes[0].values[:6] == (9, 8, None, 7, 6, 5)
    assert pattern.prefixes[1].values == tuple(b"same")
    assert len(pattern.pack(clips[0])) == 1 + 1 + 1


def test_units_that_share_nothing_have_no_pattern():
    assert learn_pattern([[bytes([index])] for index in range(5)]) is None
    assert learn_pattern([]) is None
    assert learn_pattern([[]]) is None


@pytest.mark.parametrize("values", [(256,), (-1,), (0,) * 33])
def test_prefix_refuses(values):
    with pytest.raises(ValueError, match="up to 32 bytes"):
        Prefix(values)
