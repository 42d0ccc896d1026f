"""The frame scanner against a straightforward reading of the same frames, cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.errors import RemoteProtocolError
from voicecore.server.port.frames import FrameBudget, FrameScanner

SIZES = st.sampled_from([0, 1, 125, 126, 127, 200, 65_535, 65_536])


def frame(opcode: int, size: int, is_masked: bool) -> bytes:
    mask_bit = 0x80 if is_masked else 0
    if size < 126:
        head = bytes([0x80 | opcode, mask_bit | size])
    elif size < 65_536:
        head = bytes([0x80 | opcode, mask_bit | 126]) + size.to_bytes(2)
    else:
        head = bytes([0x80 | opcode, mask_bit | 127]) + size.to_bytes(8)
    return head + bytes(4 if is_masked else 0) + bytes(size)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 9, 10]), SIZES, st.booleans()), max_size=5),
    st.lists(st.integers(0, 70_000), max_size=8),
)
def test_frames_are_counted_however_they_are_cut(
    frames: list[tuple[int, int, bool]], cuts: list[int]
) -> None:
    data = b"".join(frame(*each) for each in frames)
    scanner = FrameScanner(65_536, 10)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    assert sum(scanner.feed(piece) for piece in pieces) == len(frames)
    assert not scanner.closed
    scanner.feed(frame(8, 2, is_masked=True))
    assert scanner.closed


def test_one_byte_at_a_time() -> None:
    data = b"".join(frame(1, size, is_masked=True) for size in (0, 125, 126, 65_535, 65_536))
    scanner = FrameScanner(65_536, 10)
    assert sum(scanner.feed(data[at : at + 1]) for at in range(len(data))) == 5


def test_a_huge_message_is_known_by_its_head() -> None:
    scanner = FrameScanner(65_536, 10)
    with pytest.raises(RemoteProtocolError) as caught:
        scanner.feed(b"\x81\xff" + (2**63 - 1).to_bytes(8) + bytes(4))
    assert caught.value.close_code == 1009


@given(st.lists(st.integers(0, 71_000), max_size=6))
def test_what_follows_a_huge_message_is_still_told_from_it(cuts: list[int]) -> None:
    noise = bytes(range(256)) * 280
    huge = frame(1, len(noise), is_masked=True)[: -len(noise)] + noise
    data = huge + frame(8, 2, is_masked=True)
    scanner = FrameScanner(65_536, 10)
    refused = 0
    for a, b in pairwise([0, *sorted(cuts), len(huge), len(data)]):
        assert not scanner.closed
        try:
            scanner.feed(data[a:b])
        except RemoteProtocolError:
            refused += 1
            scanner.feed(b"")
    assert (refused, scanner.closed) == (1, True)


def test_control_frames_between_fragments_count_for_nothing() -> None:
    scanner = FrameScanner(100, 3)
    scanner.feed(frame(1, 50, is_masked=True))
    for _ in range(20):
        scanner.feed(frame(9, 100, is_masked=True))
    scanner.feed(frame(0, 50, is_masked=True) + frame(0, 0, is_masked=True))
    with pytest.raises(RemoteProtocolError):
        scanner.feed(frame(0, 0, is_masked=True))


def test_a_budget_allows_a_burst_and_then_a_rate() -> None:
    budget = FrameBudget(rate=500, burst=4000, now=0.0)
    assert budget.spend(4000, 0.0) == 0
    assert budget.spend(250, 0.0) == 0.5
    assert budget.strained_for(2.0) == 2.0
    assert budget.spend(0, 10.0) == 0
    assert budget.strained_for(10.0) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 9]), st.sampled_from([3, 126, 320, 700])), max_size=6
    ),
    st.integers(0, 4000),
)
def test_plain_messages_are_split_off_as_far_as_they_go(
    frames: list[tuple[int, int]], cut: int
) -> None:
    data = b"".join(frame(opcode, size, is_masked=True) for opcode, size in frames)[:cut]
    scanner = FrameScanner(65_536, 10)
    messages, rest = scanner.plain_messages(data)
    plain: list[str | bytes] = []
    left = len(data)
    for opcode, size in frames:
        left -= size + 8
        if opcode == 9 or size < 126 or left < 0:
            break
        plain.append("\0" * size if opcode == 1 else bytes(size))
    assert messages == plain
    assert rest == data[sum(len(message) + 8 for message in plain) :]
