"""Who may control calls, and what a path with a name in it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_house import ask, get, memory_server, port_server, settings

from voicecore.server.control.admin import is_loopback, refusal
from voicecore.server.port.http import BadRequest, Request
from voicecore.server.port.paths import NAME_CHARS, find_path
from voicecore.server.routes import NAMED_ROUTES, find_route

TOKENS = {"admin_token": " first , second ,"}


def request(peer: str = "127.0.0.1", host: str = "127.0.0.1:8000", **headers: str) -> Request:
    given = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    fields = tuple((name.encode(), value.encode("latin-1")) for name, value in given.items())
    return Request("GET", "/calls", "1.1", fields, peer)


def status(request: Request, **given: str) -> int:
    answer = refusal(settings(**given), request)
    return 200 if answer is None else answer.status


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer first", 200),
        ("bearer  second ", 200),
        ("", 401),
        ("Bearer ", 401),
        ("Bearer first , second ,", 401),
        ("Bearer firs", 401),
        ("Bearer first2", 401),
        ("Basic first", 401),
        ("first", 401),
        ("Bearer \xe9\xff", 401),
        ("Bearer first, Bearer first", 401),
    ],
)
def test_a_token_is_all_that_counts(header: str, expected: int) -> None:
    for peer in ("127.0.0.1", "203.0.113.7", ""):
        asked = request(peer, authorization=header, x_forwarded_for="1.2.3.4", origin="https://x")
        assert status(asked, **TOKENS) == expected
    answer = refusal(settings(**TOKENS), request())
    assert answer is not None
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("token", ["", " , ", ","])
def test_an_empty_token_is_none_and_opens_nothing(token: str) -> None:
    assert status(request("203.0.113.7", authorization="Bearer "), admin_token=token) == 403
    assert status(request(authorization="Bearer "), admin_token=token) == 200


@pytest.mark.parametrize(
    "asked",
    [
        request("203.0.113.7"),
        request("::ffff:203.0.113.7"),
        request("10.0.0.1"),
        request(""),
        request(x_forwarded_for="127.0.0.1"),
        request(forwarded="for=127.0.0.1"),
        request(x_forwarded_host="127.0.0.1"),
        request(x_forwarded_proto="https"),  # a proxy's that docs/operating.md asks for
        request(x_forwarded_port="443"),
        request(x_real_ip="127.0.0.1"),
        request(via="1.1 proxy"),
        request(origin="http://127.0.0.1:8000"),
        request(origin="null"),
        request(sec_fetch_site="cross-site"),
        request(host="rebound.example.com"),
        request(host="127.0.0.1.example.com"),
        request(host="[::1"),
        request(host=""),
        replace(request(), version="1.0"),
    ],
)
def test_without_a_token_only_this_machine_may(asked: Request) -> None:
    answer = refusal(settings(), asked)
    assert answer is not None
    assert answer.status == 403
    assert "VOICECORE_ADMIN_TOKEN" in json.loads(answer.body)["error"]


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_this_machine_may_by_any_of_its_names(peer: str, host: str) -> None:
    assert is_loopback(peer)
    assert status(request(peer, host)) == 200


async def test_the_peers_address_is_the_sockets() -> None:
    async with port_server() as server, httpx.AsyncClient(trust_env=False) as client:
        base = f"http://127.0.0.1:{server.port}"
        assert (await client.get(f"{base}/calls")).json() == {"calls": []}
        refused = await client.get(f"{base}/calls", headers={"X-Forwarded-For": "1.2.3.4"})
        assert refused.status_code == 403
        head = await client.head(f"{base}/calls")
        assert (head.status_code, head.content) == (200, b"")
    async with port_server(admin_token="x") as server, httpx.AsyncClient(trust_env=False) as client:
        refused = await client.get(f"http://127.0.0.1:{server.port}/calls")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer ")


async def test_every_control_route_asks_who_it_is_first() -> None:
    async with memory_server(admin_token="x") as house:  # which has no switchboard behind it
        for target, method in control_targets():
            data = get(target).replace(b"GET", method.encode(), 1)
            answer = await ask(house.connect(), data, method)
            assert answer.status == 401, target


def control_targets() -> Iterator[tuple[str, str]]:
    yield "/calls", "GET"
    yield "/calls", "POST"
    for pattern, methods in NAMED_ROUTES.items():
        if pattern.startswith("/calls"):
            yield from ((pattern.format("CA1"), method) for method in methods)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/calls/CA1", ("/calls/{}", "CA1")),
        ("/calls/v3%3AT02%2F%C3%A9+/hangup", ("/calls/{}/hangup", "v3:T02/é+")),
        ("/calls/%00", ("/calls/{}", "\0")),
        ("/calls/" + "x" * NAME_CHARS, ("/calls/{}", "x" * NAME_CHARS)),
        ("/calls/" + "x" * (NAME_CHARS + 1), None),
        ("/calls/%ff", None),
        ("/calls/", None),
        ("/calls//hangup", None),
        ("/calls/CA1/", None),
        ("/calls/CA1/hangup/", None),
        ("/calls/CA1\n/hangup", ("/calls/{}/hangup", "CA1\n")),
        ("/transfer/x/briefing.wav", ("/transfer/{}/briefing.wav", "x")),
        ("/transfer/x/briefingXwav", None),
    ],
)
def test_a_path_has_one_name_in_it(path: str, found: tuple[str, str] | None) -> None:
    assert find_path(path, NAMED_ROUTES) == found


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=300))
def test_any_path_is_found_or_refused(tail: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        try:
            find_route(Request(method, f"/calls/{tail}", "1.1", ()))
        except BadRequest as refusal:
            refused = refusal.response
        else:
            continue
        assert refused.status in (404, 405)
        assert method not in refused.headers.get("Allow", "").split(", ")


def test_a_wrong_method_is_told_the_right_ones() -> None:
    for target, allowed in (("/calls", "GET, HEAD, POST"), ("/calls/CA1/say", "POST"),
                            ("/calls/CA1", "GET, HEAD")):  # fmt: skip
        with pytest.raises(BadRequest) as refused:
            find_route(Request("DELETE", target, "1.1", ()))
        assert refused.value.response.headers["Allow"] == allowed
