"""TwiML as a carrier reads it, without I/O: a document in, the verbs that the phone can play out.

The document comes from a stranger: its size is bounded, and a DOCTYPE, without which there is no
entity to expand, is refused.  Names are case-sensitive, relative URLs resolve against the URL of
the document (twilio.com/docs/voice/twiml).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit
from xml.etree import ElementTree

from ..errors import RemoteProtocolError

MAX_BYTES = 65536
MAX_PARAMETER_CHARS = 500
"""A <Parameter>'s name and value together stay under this."""
MAX_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Say:
    """Text that the carrier itself would speak."""

    text: str


@dataclass(frozen=True, slots=True)
class Play:
    """A sound file that the carrier would fetch and play."""

    url: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Redirect:
    """Go on with another document."""

    url: str
    method: str


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the call."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Do not even answer the call."""

    reason: str


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a bidirectional media stream; when it has ended go on at `action`, if there is one."""

    stream_url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    action: str | None = None
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A verb that this phone cannot play."""

    name: str


Verb = Say | Play | Pause | Redirect | Hangup | Reject | Connect | Unsupported


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses the DOCTYPE when the parser meets it, whatever the document's encoding."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise RemoteProtocolError("TwiML has no DOCTYPE")


def parse(document: bytes, url: str) -> tuple[Verb, ...]:
    """Read a document that was fetched from `url`.

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
    text = " ".join("".join(element.itertext()).split())
    method = _method(element)
    match element.tag:
        case "Say":
            return Say(text)
        case "Play":
            return Play(_resolve(base, text))
        case "Pause":
            return Pause(_seconds(element.get("length", "1")))
        case "Redirect":
            return Redirect(_resolve(base, text), method)
        case "Hangup":
            return Hangup()
        case "Reject":
            return Reject(element.get("reason", "rejected"))
        case "Connect":
            return _connect(element, base, method)
        case _:
            return Unsupported(str(element.tag)[:40])


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
        return urljoin(base, url)
    except ValueError as error:
        raise RemoteProtocolError(f"malformed URL {url!r:.80}: {error}") from None


def _method(element: ElementTree.Element) -> str:
    return "GET" if element.get("method", "POST").upper() == "GET" else "POST"


def _seconds(text: str) -> float:
    return min(float(text), MAX_PAUSE_S) if text.isascii() and text.isdigit() else 1.0
