"""Twilio's REST API as far as a voice server needs it, without I/O: a request in, a response out.

    GET, DELETE  …/Recordings/{RE}[.wav|.json]
    POST         …/Calls.json
    GET, POST    …/Calls/{CA}.json

all under ``/2010-04-01/Accounts/{AC}``, with Basic authentication.  Errors have Twilio's numbers.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from hmac import compare_digest
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ..errors import RemoteProtocolError
from .account import Account, CallOrder, Detection, Goal, RestError
from .http import Request, Response
from .progress import API_VERSION
from .twiml import parse
from .verbs import StatusCallback

MAX_FIELDS = 200
MAX_TWIML_CHARS = 4000
MAX_RING_S = 600.0
MP3_HINT = "this carrier keeps WAV only"

_PATH = re.compile(
    rf"/{API_VERSION}/Accounts/(?P<account>[^/]+)"
    r"/(?P<kind>Calls|Recordings)(?:/(?P<sid>[A-Za-z0-9]+))?(?P<suffix>\.json|\.wav|\.mp3)?"
)
_NUMBER = re.compile(r"\+[1-9]\d{6,14}|(?:client|sip):.{1,100}")


class RestApi:
    """Answers for one account.  `clock` is trio's: a recording is not there at once."""

    def __init__(self, account: Account, clock: Callable[[], float]) -> None:
        self._account = account
        self._clock = clock

    def __repr__(self) -> str:
        return f"<RestApi of {self._account}>"

    def answer(self, request: Request) -> Response:
        """Answer one request; a `http.Answer`."""
        try:
            return self._answer(request)
        except RestError as error:
            headers = {}
            if error.status == 401:
                headers["WWW-Authenticate"] = 'Basic realm="Twilio API"'
            return Response(error.status, msgspec.json.encode(error.as_json()), headers=headers)

    def _answer(self, request: Request) -> Response:
        path = request.target.partition("?")[0]
        found = _PATH.fullmatch(path)
        self._authenticate(request.headers.get("authorization", ""))
        if found is None or found["account"] != self._account.sid:
            raise RestError(404, 20404, f"The requested resource {path[:200]} was not found")
        match found["kind"], found["sid"], request.method, found["suffix"]:
            case "Recordings", str(sid), "GET" | "HEAD" | "DELETE", suffix:
                return self._recording(request.method, sid, suffix)
            case "Calls", None, "POST", ".json":
                return self._create(_form(request))
            case "Calls", str(sid), "POST", ".json":
                return self._update(sid, _form(request))
            case "Calls", str(sid), "GET", ".json":
                return _json(200, self._account.call(sid).progress.as_json())
        raise RestError(405, 20004, f"Method {request.method} is not allowed on {path[:200]}")

    def _authenticate(self, header: str) -> None:
        account = self._account
        if account.token is None:
            return
        kind, _, credentials = header.partition(" ")
        try:
            given = b64decode(credentials, validate=True)
        except ValueError:
            given = b""
        expected = f"{account.sid}:{account.token}".encode()
        if kind.lower() != "basic" or not compare_digest(given, expected):
            raise RestError(401, 20003, "Authenticate")

    def _recording(self, method: str, sid: str, suffix: str | None) -> Response:
        account, now = self._account, self._clock()
        recording = account.recording(sid, now)
        if method == "DELETE":
            account.delete(sid, now)
            return Response(204)
        if suffix == ".json":
            return _json(200, account.as_json(recording))
        if suffix == ".mp3":
            raise RestError(404, 20404, f"Recordings/{sid}.mp3 was not found: {MP3_HINT}")
        return Response(200, recording.as_wav(), "audio/x-wav")

    def _create(self, form: dict[str, list[str]]) -> Response:
        order = call_order(form)
        if self._account.place is None:
            raise RestError(
                400, 21219, "Nobody takes calls here: run the phone with --callee to be called"
            )
        call = self._account.place(order)
        self._account.add(call)
        return _json(201, call.progress.as_json())

    def _update(self, sid: str, form: dict[str, list[str]]) -> Response:
        call = self._account.call(sid)
        status = _first(form, "Status")
        goal = None if status else _goal(form)
        if status not in ("", "completed", "canceled"):
            raise RestError(400, 20001, f"Status takes completed or canceled, not {status:.20}")
        if call.progress.over:
            raise RestError(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == "canceled" and call.progress.answered:
            raise RestError(400, 21220, "Call is in-progress. Cannot cancel.")
        if goal is not None:
            call.redirect(goal)
        else:
            call.end("completed" if call.progress.answered else "canceled")
        return _json(200, call.progress.as_json())


def call_order(form: dict[str, list[str]]) -> CallOrder:
    """Read what POST …/Calls.json asks for.

    Raises:
        RestError: Twilio's 21201, 21211 (To), 21210, 21212 (From), 21205 (Url), 12100 (Twiml).
    """
    called, caller = _first(form, "To"), _first(form, "From")
    if not called:
        raise RestError(400, 21201, "No 'To' number is specified")
    if not _NUMBER.fullmatch(called):
        raise RestError(400, 21211, f"Invalid 'To' Phone Number: {called:.40}")
    if not caller:
        raise RestError(400, 21213, "'From' phone number is required")
    if not _NUMBER.fullmatch(caller):
        raise RestError(400, 21212, f"Invalid 'From' Phone Number: {caller:.40}")
    return CallOrder(
        caller=caller,
        called=called,
        goal=_goal(form),
        callback=_callback(form, "StatusCallback"),
        detection=_detection(form),
        ring_limit_s=_ring_limit_s(_first(form, "Timeout")),
    )


def _goal(form: dict[str, list[str]]) -> Goal:
    """Read where a call begins or goes on.  If both are given Twiml is ignored, as Twilio does."""
    url, document = _first(form, "Url"), _first(form, "Twiml")
    if url:
        if _scheme(url) not in ("http", "https"):
            raise RestError(400, 21205, f"Url is not a valid URL: {url:.80}")
        return Goal(url, "GET" if _first(form, "Method").upper() == "GET" else "POST")
    if not document:
        raise RestError(400, 21205, "Url or Twiml is required")
    if len(document) > MAX_TWIML_CHARS:
        raise RestError(400, 21605, f"Twiml has more than {MAX_TWIML_CHARS} characters")
    try:
        parse(document.encode(errors="replace"), "")
    except RemoteProtocolError as error:
        raise RestError(400, 12100, f"Document parse failure: {error}") from None
    return Goal("", document=document.encode(errors="replace"))


def _callback(form: dict[str, list[str]], name: str) -> StatusCallback | None:
    url = _first(form, name)
    if not url:
        return None
    if _scheme(url) not in ("http", "https"):
        raise RestError(400, 21609, f"{name} is not a valid URL: {url:.80}")
    events = {event for text in form.get(f"{name}Event", []) for event in text.split()}
    method = "GET" if _first(form, f"{name}Method").upper() == "GET" else "POST"
    return StatusCallback(url, frozenset(events or {"completed"}), method)


def _detection(form: dict[str, list[str]]) -> Detection | None:
    if _first(form, "MachineDetection") not in ("Enable", "DetectMessageEnd"):
        return None
    asynchronous = _first(form, "AsyncAmd").lower() == "true"
    return Detection(_callback(form, "AsyncAmdStatusCallback"), asynchronous)


def _ring_limit_s(text: str) -> float:
    return min(float(text), MAX_RING_S) if text.isascii() and text.isdigit() else 60.0


def _form(request: Request) -> dict[str, list[str]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise RestError(415, 20001, "The body is application/x-www-form-urlencoded")
    text = request.body.decode("utf-8", "replace")
    form: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise RestError(400, 20001, f"More than {MAX_FIELDS} parameters") from None
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


def _first(form: dict[str, list[str]], name: str) -> str:
    return form.get(name, [""])[0].strip()


def _scheme(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.scheme if parts.hostname else None


def _json(status: int, body: object) -> Response:
    return Response(status, msgspec.json.encode(body))
