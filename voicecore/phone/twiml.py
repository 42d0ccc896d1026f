"""TwiML as a carrier reads it, without I/O: a document in, the `verbs` that the phone plays out.

The document comes from a stranger: its size is bounded, and a DOCTYPE, without which there is no
entity to expand, is refused.  Names are case-sensitive, relative URLs resolve against the URL of
the document (twilio.com/docs/voice/twiml).
"""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit
from xml.etree import ElementTree

from ..errors import RemoteProtocolError
from .verbs import (
    MAX_LOOPS,
    Connect,
    Dial,
    Gather,
    Hangup,
    Pause,
    Play,
    Record,
    Redirect,
    Reject,
    Say,
    StatusCallback,
    Unsupported,
    Verb,
)

MAX_BYTES = 65536
MAX_PARAMETER_CHARS = 500
"""A <Parameter>'s name and value together stay under this."""
MAX_PAUSE_S = 60.0
MAX_RECORD_S = 14400.0
KEYS = frozenset("0123456789*#")


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses the DOCTYPE when the parser meets it, whatever the document's encoding."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise RemoteProtocolError("TwiML has no DOCTYPE")


def parse(document: bytes, url: str) -> tuple[Verb, ...]:
    """Read a document that was fetched from `url`; "": it came by REST, and has none.

    Raises:
        RemoteProtocolError: not TwiML; one line that says why (Twilio's error 12100 and relatives).
    """
    if len(document) > MAX_BYTES:
        raise RemoteProtocolError(f"TwiML of {len(document)} bytes, at most {MAX_BYTES} are read")
    # Without a DOCTYPE expat expands nothing, and it loads nothing from outside by default.
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314
    try:
        parser.feed(document)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise RemoteProtocolError(f"not TwiML (12100): {error}") from None
    if root.tag != "Response":
        raise RemoteProtocolError(f"the root is <{root.tag:.40}>, not <Response> (12100)")
    return tuple(_verb(element, url) for element in root)


def _verb(element: ElementTree.Element, base: str) -> Verb:
    method = _method(element)
    match element.tag:
        case "Say" | "Play" | "Pause":
            return _prompt(element, base)
        case "Redirect":
            return Redirect(_resolve(base, _text(element)), method)
        case "Hangup":
            return Hangup()
        case "Reject":
            return Reject(element.get("reason", "rejected"))
        case "Connect":
            return _connect(element, base, method)
        case "Record":
            return _record(element, base, method)
        case "Gather":
            return _gather(element, base, method)
        case "Dial":
            return _dial(element, base, method)
        case _:
            return Unsupported(str(element.tag)[:40])


def _prompt(element: ElementTree.Element, base: str) -> Say | Play | Pause:
    loop = int(_number(element.get("loop"), 1.0, MAX_LOOPS)) or MAX_LOOPS
    if element.tag == "Say":
        return Say(_text(element), loop)
    if element.tag == "Pause":
        return Pause(_number(element.get("length"), 1.0, MAX_PAUSE_S))
    digits = "".join(key for key in element.get("digits", "") if key in KEYS or key in "wW")
    return Play("" if digits else _resolve(base, _text(element)), loop, digits)


def _record(element: ElementTree.Element, base: str, method: str) -> Record:
    callback = element.get("recordingStatusCallback")
    events = element.get("recordingStatusCallbackEvent", "completed").split()
    status_method = _method(element, "recordingStatusCallbackMethod")
    return Record(
        action=_action(element, base),
        method=method,
        timeout=_number(element.get("timeout"), 5.0, MAX_RECORD_S),
        finish_on_key=element.get("finishOnKey", "1234567890*#"),
        # From 2 s, as Twilio has it (twilio.com/docs/voice/twiml/record).
        max_length=max(2.0, _number(element.get("maxLength"), 3600.0, MAX_RECORD_S)),
        play_beep=element.get("playBeep", "true").lower() != "false",
        trim=element.get("trim", "trim-silence") != "do-not-trim",
        callback=None
        if not callback
        else StatusCallback(_resolve(base, callback), frozenset(events), status_method),
    )


def _gather(element: ElementTree.Element, base: str, method: str) -> Gather | Unsupported:
    if "dtmf" not in element.get("input", "dtmf").split():
        # No recogniser of our own: speech alone would be a promise that is not kept.
        return Unsupported("Gather of speech")
    nested = (child for child in element if child.tag in ("Say", "Play", "Pause"))
    return Gather(
        action=_action(element, base),
        method=method,
        prompts=tuple(_prompt(child, base) for child in nested),
        num_digits=int(_number(element.get("numDigits"), 0.0, 1000.0)),
        finish_on_key=element.get("finishOnKey", "#"),
        timeout=_number(element.get("timeout"), 5.0, MAX_RECORD_S),
        on_empty=element.get("actionOnEmptyResult", "false").lower() == "true",
    )


def _dial(element: ElementTree.Element, base: str, method: str) -> Dial:
    conference = element.find("Conference")
    nouns = [child for child in element if child.tag in ("Number", "Client", "Sip")]
    numbers = [_text(noun) for noun in nouns] or [" ".join((element.text or "").split())]
    action = element.get("action")
    return Dial(
        targets=tuple(number for number in numbers if number),
        conference=None if conference is None else _text(conference),
        action=None if action is None else _resolve(base, action),
        method=method,
        timeout=_number(element.get("timeout"), 30.0, 600.0),
    )


def _connect(element: ElementTree.Element, base: str, method: str) -> Verb:
    stream = element.find("Stream")
    if stream is None:
        nouns = "+".join(str(child.tag) for child in element) or "nothing"
        return Unsupported(f"Connect of {nouns:.40}")
    url = stream.get("url", "").strip()
    if not url:
        raise RemoteProtocolError("<Stream> has no url (12100)")
    parameters = {item.get("name", ""): item.get("value", "") for item in stream.iter("Parameter")}
    for name, value in parameters.items():
        if not name or len(name) + len(value) >= MAX_PARAMETER_CHARS:
            raise RemoteProtocolError(f"<Parameter name={name!r:.40}> has no name or is too long")
    action = element.get("action")
    target = None if action is None else _resolve(base, action)
    if "://" not in url:
        # Relative to the document: its host, in the WebSocket's scheme.
        url = "ws" + _resolve(base, url).removeprefix("http")
    return Connect(stream_address(url), parameters, target, method)


def stream_address(url: str) -> str:
    """Return a stream's absolute URL without its fragment, or say what Twilio would.

    ``ws``, which Twilio refuses, is taken: it is how a server is tried out on one machine.

    Raises:
        RemoteProtocolError: Twilio's 31920 (query string), 31922 (scheme) or 31923 (malformed).
    """
    parts = _split(url)
    if parts.scheme not in ("ws", "wss"):
        raise RemoteProtocolError(f"31922: a stream's scheme is wss, not {parts.scheme!r:.20}")
    if not parts.hostname:
        raise RemoteProtocolError(f"31923: a stream's URL without a host: {url!r:.80}")
    if parts.query:
        raise RemoteProtocolError("31920: a stream's URL has no query string; use <Parameter>")
    return parts._replace(fragment="").geturl()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what validates it
    except ValueError as error:
        raise RemoteProtocolError(f"malformed URL {url!r:.80}: {error}") from None
    return parts


def _resolve(base: str, url: str) -> str:
    try:
        absolute = urljoin(base, url)
    except ValueError as error:
        raise RemoteProtocolError(f"malformed URL {url!r:.80}: {error}") from None
    if not base and "://" not in absolute:
        raise RemoteProtocolError(f"TwiML without a URL needs absolute ones, not {url!r:.80}")
    return absolute


def _action(element: ElementTree.Element, base: str) -> str:
    """Return where a verb's result goes: without an action to the very document that it is in."""
    action = element.get("action", "")
    if not action and not base:
        raise RemoteProtocolError(f"<{element.tag}> of TwiML without a URL needs an action (11100)")
    return _resolve(base, action)


def _text(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _method(element: ElementTree.Element, name: str = "method") -> str:
    return "GET" if element.get(name, "POST").upper() == "GET" else "POST"


def _number(text: str | None, default: float, most: float) -> float:
    """Read a whole number; what is none counts as not given, as Twilio warns and goes on."""
    return min(float(text), most) if text and text.isascii() and text.isdigit() else default
