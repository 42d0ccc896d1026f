"""Targets with a name in them: ``/calls/{}/hangup``, where the name is a call's, of any carrier.

Nothing of a path goes into metrics or routes but what the table says; the name is data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from urllib.parse import parse_qs, unquote

from .http import Request
from .limits import FORM_FIELDS

NAME_CHARS = 256
"""A name as it is written in the path; the longest call SID of a carrier has 60."""


def find_path(path: str, patterns: Iterable[str]) -> tuple[str, str] | None:
    """Return the pattern that a path matches, and its name, decoded; None if there is none."""
    for pattern in patterns:
        match = _compiled(pattern).fullmatch(path)
        if match is not None:
            try:
                return pattern, unquote(match.group(1), errors="strict")
            except UnicodeDecodeError:
                return None
    return None


def query_value(request: Request, name: str) -> str:
    """Return a value of a URL's query, empty if there is none, or not one."""
    try:
        values = parse_qs(request.query, max_num_fields=FORM_FIELDS).get(name, [])
    except ValueError:
        return ""
    return values[0] if len(values) == 1 else ""


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    before, after = map(re.escape, pattern.split("{}"))
    return re.compile(f"{before}([^/]{{1,{NAME_CHARS}}}){after}")
