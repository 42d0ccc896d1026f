"""Server-sent events: whatever the chunking, the same events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.providers.sse import MAX_LINE_BYTES, SSEParser


def parsed(*pieces: bytes) -> list[str]:
    parser = SSEParser()
    found = [event for piece in pieces for event in parser.feed(piece)]
    return found + parser.end()


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data: a\r\n\r\n", ["a"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data:a\n\ndata:  b\n\n", ["a", " b"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b": keep-alive\n\nevent: x\nid: 7\nretry: 9\ndata: a\n\n", ["a"]),
        (b"\n\n\n", []),
        (b"data: [DONE]", ["[DONE]"]),
        (b"data: a\n", ["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data\n\n", [""]),
        ("data: नमस्ते\n\n".encode(), ["नमस्ते"]),
    ],
)
def test_events(stream: bytes, found: list[str]) -> None:
    assert parsed(stream) == found
    assert parsed(*(stream[at : at + 1] for at in range(len(stream)))) == found


LINES = st.lists(
    st.one_of(
        st.text(max_size=20).map(lambda text: f"data: {text}"),
        st.just(": comment"),
        st.just("event: x"),
        st.just(""),
    ).map(lambda line: line.replace("\n", "").replace("\r", "")),
    max_size=20,
)


@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 400), max_size=20))
def test_chunking_changes_nothing(lines: list[str], ending: str, cuts: list[int]) -> None:
    stream = "".join(line + ending for line in lines).encode()
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:stop] for start, stop in pairwise(borders)]
    assert parsed(*pieces) == parsed(stream)


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_a_value_error(stream: bytes) -> None:
    try:
        assert all(isinstance(event, str) for event in parsed(stream))
    except ValueError:
        pass


def test_lines_and_events_are_bounded() -> None:
    with pytest.raises(ValueError, match="a line of more than"):
        SSEParser().feed(b"data: " + b"x" * MAX_LINE_BYTES)
    with pytest.raises(ValueError, match="an event of more than"):
        SSEParser().feed(b"data: 1234567890\n" * (MAX_LINE_BYTES // 16 + 1))


def test_keep_alives_count_for_no_event() -> None:
    parser = SSEParser()
    for _ in range(MAX_LINE_BYTES // 8):
        assert parser.feed(b": keep-alive\n\n") == []
    assert parser.feed(b"data: a\n\n") == ["a"]
