"""Every error that voicecore raises, in one tree.

    VoicecoreError
    ├── SettingsError             the operator's: a bad value in a flag, the environment or .env
    ├── ProtocolError             about a wire format
    │   ├── LocalProtocolError    we broke the rules: a bug, never caught
    │   └── RemoteProtocolError   the peer broke them so that its call must end
    ├── CannotListen              the operator's too: the port is taken, or the host is not ours
    ├── LineClosed                the WebSocket is gone, or so stuck that we gave it up
    ├── CallRefused               a stream that may not become a call (bad token, wrong format)
    ├── RestError                 the carrier's REST API refused, or did not answer
    └── ProviderError             STT, LLM or TTS failed; the turn goes on without it

The peer's mistakes are weather: they end at most that peer's call.  Ours are bugs and end loudly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeVar

Leaf = TypeVar("Leaf", bound=BaseException)

ProviderFault = Literal["connect", "timeout", "refused", "busy", "status", "garbage", "cut"]
"""What went wrong, as a label for logs and metrics.

connect: no connection; timeout: a deadline passed; refused: 401/403; busy: 429; status: any other
HTTP error; garbage: an answer that is not what the wire format says; cut: a stream that broke off.
"""


class VoicecoreError(Exception):
    """The root of the tree."""


class SettingsError(VoicecoreError):
    """A bad setting.  ``str()`` is one line per mistake, each naming its variable."""


class CannotListen(VoicecoreError):
    """The address cannot be listened on.  ``str()`` is one line for the operator."""


class ProtocolError(VoicecoreError):
    """Something does not follow a wire format.  Only its two children are raised."""


class LocalProtocolError(ProtocolError):
    """We tried to say what the protocol's state does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer's messages leave no choice but to close; `close_code` is the WebSocket code."""

    def __init__(self, reason: str, close_code: int = 1008) -> None:
        super().__init__(reason)
        self.close_code = close_code


class LineClosed(VoicecoreError):
    """The line to the carrier has ended; nothing can be sent or received any more."""


class CallRefused(VoicecoreError):
    """This stream may not become a call; `close_code` tells the carrier."""

    def __init__(self, reason: str, close_code: int = 1008) -> None:
        super().__init__(reason)
        self.close_code = close_code


class RestError(VoicecoreError):
    """The carrier's REST API refused a request, or gave no answer.

    `status` is HTTP's (0: no answer), `code` the carrier's own (0: none), `message` its words: one
    line, without secrets, but maybe with a phone number.
    """

    def __init__(
        self, fault: ProviderFault, message: str, *, status: int = 0, code: int = 0
    ) -> None:
        super().__init__(f"{fault}: {message}")
        self.fault: ProviderFault = fault
        self.message = message
        self.status = status
        self.code = code
        self.retry_after_s: float | None = None
        """How long the carrier asks us to wait, if it does."""

    @property
    def was_ignored(self) -> bool:
        """Whether the request certainly had no effect, and may be made again."""
        return self.fault in ("connect", "busy")


class ProviderError(VoicecoreError):
    """A provider failed.  The message is one line, fit for a log, without secrets or text."""

    def __init__(self, provider: str, fault: ProviderFault, detail: str) -> None:
        super().__init__(f"{provider}: {fault}: {detail}")
        self.provider = provider
        self.fault: ProviderFault = fault


def leaves(group: BaseExceptionGroup[Leaf]) -> Iterator[Leaf]:
    """The exceptions in a group, however deep trio's nurseries have nested them."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
