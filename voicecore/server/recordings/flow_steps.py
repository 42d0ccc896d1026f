"""What a caller in the recording flow hears next, and what is then: a table of cases, without I/O.

nothing was said      "did you say something?", and after a few of those goodbye
a turn failed         an apology, and after a few of those a last one
it was answered       the answer, and whatever the answer asks for
the time is over      goodbye
"""

from __future__ import annotations

from dataclasses import dataclass

from ...call.agent import Agent
from ...call.hands import Gather
from ...call.phrases import StockWords
from ...call.recorded import Dial, HangUp, Next, Record, RecordedAnswer
from ..call_state import CallState

WEBHOOKS = 1000
"""Of one call.  An hour of quick talk has fewer."""


RECORD = Record()


@dataclass(frozen=True, slots=True)
class Step:
    """What is heard, and what is next.

    Mu-law that is not given is made of the text; given, it is an answer that the history has.
    """

    text: str
    next: Next = RECORD
    audio: bytes = b""


def greeting(state: CallState, agent: Agent) -> Step:
    """A call has come here from outside: by its number, or because its other way failed."""
    return Step(_words(agent).cut_off if state.messages else agent.persona.greeting)


def after_stream(state: CallState, agent: Agent) -> Step:
    """A call's stream has failed.  If nobody knows what was said in it, that is an apology."""
    return Step(_words(agent).cut_off if state.messages else _words(agent).apology)


def after_dial(state: CallState, agent: Agent) -> Step:
    """Whoever the call was given to has not answered."""
    return Step(_words(agent).no_answer)


def after_failure(state: CallState, agent: Agent) -> Step:
    """A turn has come to nothing."""
    return after_answer(state, agent, RecordedAnswer(has_failed=True))


def after_answer(state: CallState, agent: Agent, answer: RecordedAnswer) -> Step:
    """A turn has been taken: count it, and draw the consequences."""
    words, limits = _words(agent), agent.limits
    if answer.has_failed:
        state.failures += 1
        if state.failures >= limits.failed_turns:
            return _giving_up(state, agent)
        return Step(answer.text or words.apology, RECORD, answer.audio)
    state.failures = 0
    if not answer.audio and not isinstance(answer.next, Gather):
        state.silences += 1
        is_left = state.silences > limits.idle_prompts
        return Step(words.goodbye, HangUp("agent")) if is_left else Step(words.unheard)
    state.silences = 0
    state.turns += 1
    return Step(answer.text, answer.next, answer.audio)


def _giving_up(state: CallState, agent: Agent) -> Step:
    """Nothing works any more: others take the call, unless it comes from there; else it is over."""
    last = agent.giving_up
    if last.transfer is not None and state.transfer is None:
        return Step(last.text, Dial(last.transfer))
    return Step(_words(agent).give_up, HangUp("agent"))


def at_limit(state: CallState, agent: Agent, now: float) -> Step | None:
    """Return the goodbye of a call that has gone on for long enough."""
    if now >= state.began + agent.limits.max_call_s:
        return Step(_words(agent).goodbye, HangUp("length"))
    return Step(_words(agent).goodbye, HangUp("server")) if state.webhooks > WEBHOOKS else None


def _words(agent: Agent) -> StockWords:
    return agent.persona.stock_words
