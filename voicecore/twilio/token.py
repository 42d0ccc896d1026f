"""The one-time token that ties a media stream to the webhook that asked for it.

The signature of an upgrade is the same for every call, so whoever has seen one could open streams
for ever.  The token names its call, lives a minute, and is good once.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Protocol

_PURPOSE = b"voicecore media stream token"
_PROOF_PURPOSE = b"voicecore url about a call"


class UsedTokens(Protocol):
    """Remembers which tokens were presented.  Bounded: the oldest may be forgotten."""

    def first_use(self, token: str) -> bool:
        """Note a token; return whether it is new."""


class StreamTokens:
    """Issues and redeems tokens.  All workers derive one key from `secret`.

    Time is an argument: seconds on a clock that all workers share.
    """

    def __init__(self, secret: str, used: UsedTokens, lifetime_s: float) -> None:
        self._key = hmac.digest(secret.encode(), _PURPOSE, sha256)
        self._used = used
        self._lifetime_s = lifetime_s

    def issue(self, call_sid: str, now: float) -> str:
        """Make a token for one call: 70 characters of URL-safe ASCII."""
        stamp = f"{int(now + self._lifetime_s):x}.{secrets.token_urlsafe(12)}"
        return f"{stamp}.{self._mac(stamp, call_sid)}"

    def redeem(self, token: str, call_sid: str, now: float) -> bool:
        """Return whether the token is ours, for this call, alive, and new; it is used then."""
        stamp, _, mac = token.rpartition(".")
        expected = self._mac(stamp, call_sid)
        if not hmac.compare_digest(mac.encode("utf-8", "replace"), expected.encode()):
            return False
        # What follows is what we wrote: the expiry in hex, a dot, the nonce.
        alive = now < int(stamp.partition(".")[0], 16)
        return alive and self._used.first_use(token)

    def _mac(self, stamp: str, call_sid: str) -> str:
        return _mac(self._key, f"{stamp}|{call_sid}")


class CallProofs:
    """Prove that a URL about a call is one that we handed out.

    Unlike a token a proof does not expire, because calls last; and it opens nothing: whoever has it
    may be told how that one call ended.  All workers derive one key from `secret`.
    """

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), _PROOF_PURPOSE, sha256)

    def prove(self, call_sid: str) -> str:
        """Return a call's proof: 43 characters of URL-safe ASCII."""
        return _mac(self._key, call_sid)

    def holds(self, proof: str, call_sid: str) -> bool:
        """Return whether a proof is ours, and this call's."""
        expected = self.prove(call_sid).encode()
        return hmac.compare_digest(proof.encode("utf-8", "replace"), expected)


def _mac(key: bytes, text: str) -> str:
    digest = hmac.digest(key, text.encode("utf-8", "replace"), sha256)
    return urlsafe_b64encode(digest).decode().rstrip("=")
