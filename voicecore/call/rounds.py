"""What a model has written in one reply: words, and the tools that it asked for in between.

A reply is one round for most: the model is asked, and writes.  If it asks for tools, they are used,
and it is asked again, with their results; that is the next round.  A reply remembers its rounds, so
that it can be cut off and go on, and so that the history can say which words were heard before
which tool was used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..contracts import Message
from ..dialogue.sentences import Clause, Splitter
from ..errors import ProviderError
from .tool_run import ToolRun

MAX_ROUNDS = 8
"""Beyond it the model is offered no tools: a model that only calls tools never answers."""

MAX_RUNS = 8
"""Tools in one round."""

MAX_CHARACTERS = 4000
"""Five minutes of speech: an LLM that goes on longer is broken."""

GO_ON = Message(
    "system",
    "You were cut off by a noise on the line. Go on exactly after your last word; repeat nothing.",
)


class Round:
    """One answer of the model."""

    def __init__(self) -> None:
        self.text = ""
        self.was_hushed = False
        self.runs: list[ToolRun] = []

    def messages(self, text: str, interrupted: bool = False) -> list[Message]:
        """Return the round as a history has it, with so much of its text."""
        calls = tuple(run.call for run in self.runs)
        said = [Message("assistant", text, interrupted, calls)] if text or calls else []
        return said + [run.message() for run in self.runs]


class Rounds:
    """One reply's rounds.  `is_hurried`: see `Splitter`."""

    def __init__(self, is_hurried: bool = True) -> None:
        self._past: list[Round] = []
        self._round = Round()
        self._is_hurried = is_hurried
        self._splitter = Splitter(is_hurried)
        self._characters = 0

    def __repr__(self) -> str:
        return f"<Rounds {self.step + 1}: {self._round.text!r:.60}>"

    @property
    def step(self) -> int:
        """How many rounds are over."""
        return len(self._past)

    @property
    def text(self) -> str:
        """What was written in this round."""
        return self._round.text

    @property
    def runs(self) -> Sequence[ToolRun]:
        """The tools that were asked for in this round."""
        return self._round.runs

    @property
    def may_use_tools(self) -> bool:
        """Whether there were not too many rounds already."""
        return self.step < MAX_ROUNDS

    def write(self, text: str) -> list[Clause]:
        """Add text; return the clauses that now stand.

        Raises:
            ProviderError: it is too much.
        """
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise ProviderError("llm", "garbage", f"over {MAX_CHARACTERS} characters")
        self._round.text += text
        return self._numbered(self._splitter.feed(text))

    def flush(self) -> list[Clause]:
        """The text of this round is complete: return what is left of it."""
        return self._numbered(self._splitter.flush())

    def want(self, run: ToolRun) -> None:
        """The model asks for a tool.

        Raises:
            ProviderError: for too many.
        """
        if len(self._round.runs) >= MAX_RUNS:
            raise ProviderError("llm", "garbage", f"over {MAX_RUNS} tools at once")
        self._round.runs.append(run)

    def hush(self) -> None:
        """The rest of what was written in this round is not wanted."""
        self._round.was_hushed = True

    def advance(self) -> None:
        """The tools were used: the next round begins."""
        self._past.append(self._round)
        self._round, self._splitter = Round(), Splitter(self._is_hurried)

    def prompt(self) -> list[Message]:
        """Return what the model must know of this reply to go on with it."""
        told = [message for past in self._past for message in past.messages(past.text.strip())]
        if self._round.text.strip():
            told += [Message("assistant", self._round.text.rstrip(), interrupted=True), GO_ON]
        return told

    def heard(
        self, words: Mapping[int, str], spoken: Mapping[int, str]
    ) -> tuple[list[Message], str]:
        """Return what a history says of the reply: messages, and its last words.

        `words` are those that were heard in each round, `spoken` all that were to be.
        """
        rounds = [*self._past, self._round] if self._round.runs else self._past
        told = []
        for step, each in enumerate(rounds):
            heard = words.get(step, "")
            is_cut = each.was_hushed or heard != spoken.get(step, "")
            told += each.messages(heard, interrupted=is_cut)
        return told, words.get(len(rounds), "")

    def _numbered(self, clauses: list[Clause]) -> list[Clause]:
        return [replace(clause, step=self.step) for clause in clauses] if self.step else clauses
