"""X-Twilio-Signature: did Twilio send this request?  (Twilio's "Webhooks security" page.)

The signature's arithmetic is the twilio package's.  Which URLs, which keys and which parameters go
into it is decided here, because the package's `validate` drops blank values when it is given a
parsed form, tries port 80 for ``wss``, and lets the sender name the algorithm.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from urllib.parse import SplitResult, parse_qsl, urlsplit

from twilio.request_validator import RequestValidator

from .rotation import secrets_in

_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


class Form(dict[str, list[str]]):
    """A form's fields: every value of every name, blank ones too.

    Bytes that are not UTF-8 are kept as surrogates, so that the signature is judged on what came.
    """

    def getlist(self, name: str) -> list[str]:
        """Return all values of a field.  The twilio package asks for them by this name."""
        return self.get(name, [])

    def first(self, name: str) -> str:
        """Return a field as readable text, empty if it is not there."""
        values = self.get(name) or [""]
        return values[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def parse_form(body: bytes, max_fields: int) -> Form:
    """Read an application/x-www-form-urlencoded body.

    Raises:
        ValueError: more than `max_fields` fields.
    """
    text = body.decode("utf-8", "surrogateescape")
    form = Form()
    pairs = parse_qsl(
        text, keep_blank_values=True, errors="surrogateescape", max_num_fields=max_fields
    )
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


class SignatureCheck:
    """Checks signatures against one or more auth tokens: while one is rotated, two are valid."""

    def __init__(self, auth_tokens: str) -> None:
        self._keys = [RequestValidator(token) for token in secrets_in(auth_tokens)]

    def accepts(self, urls: Iterable[str], form: Form, signature: str, settings: str = "") -> bool:
        """Return whether `signature` is Twilio's for one of `urls` and this form.

        `settings` is the header X-Twilio-Webhooks-Signature-Settings.  It names a key; no shared
        keys are configured here, so that whatever it names is unknown, and refused.
        """
        if settings.strip() or not signature:
            return False
        given = signature.encode("utf-8", "surrogateescape")
        accepted = False
        for variant in {variant for url in urls for variant in port_variants(url)}:
            for key in self._keys:
                try:
                    computed = key.compute_signature(variant, form).encode()
                except UnicodeEncodeError:
                    return False  # not UTF-8, so not from Twilio
                accepted |= hmac.compare_digest(computed, given)
        return accepted


def port_variants(url: str) -> list[str]:
    """Return `url` as it is, without its default port, and with it: Twilio signs any of them."""
    parts = urlsplit(url)
    default = _DEFAULT_PORTS.get(parts.scheme)
    try:
        port, host = parts.port, parts.hostname
    except ValueError:
        return [url]
    if default is None or not host or port not in (None, default):
        return [url]
    return list(dict.fromkeys([url, _with_port(url, parts, None), _with_port(url, parts, default)]))


def _with_port(url: str, parts: SplitResult, port: int | None) -> str:
    # By hand: urlunsplit drops an empty query's "?", and the signature is over the exact text.
    netloc = parts.netloc
    bare = netloc[: netloc.rindex(":")] if parts.port is not None else netloc
    rest = url.partition("://")[2][len(netloc) :]
    return f"{parts.scheme}://{bare}{'' if port is None else f':{port}'}{rest}"
