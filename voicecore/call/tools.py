"""What an agent can do besides speaking.

`END_CALL` is offered to every LLM.  It takes effect when the goodbye that came with it has been
*heard*: a reply that is interrupted does not hang up.
"""

from __future__ import annotations

from ..contracts import Tool

END_CALL = Tool(
    name="end_call",
    description=(
        "End the phone call. Say goodbye in the same reply: the call ends when the caller has heard"
        " it. Use it only when the caller wants to finish."
    ),
)
