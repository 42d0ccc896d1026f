"""Which text lies at which byte of a reply's audio, and so: which words were heard.

TTS vendors differ in what timing they tell; all of them make a clause from a text.  So the text of
each clause is known exactly at its borders and by its share of characters in between, cut back to
whole words: a word half heard was not heard.  A clause whose audio is still coming is taken to be
as long as its text says, at the pace of the call's clauses before it.
"""

from __future__ import annotations

from dataclasses import dataclass


class Pace:
    """How many bytes of audio a voice needs for a character, learned clause by clause.

    Begins at fifteen characters a second, the pace of most English voices.
    """

    def __init__(self) -> None:
        self._bytes, self._characters = 8000, 15

    def __repr__(self) -> str:
        return f"<Pace {8000 / self.bytes_per_character:.1f} characters a second>"

    @property
    def bytes_per_character(self) -> float:
        """Mu-law bytes for one character of text."""
        return self._bytes / self._characters

    def learn(self, text: str, size: int) -> None:
        """A clause of `text` took `size` bytes."""
        self._bytes += size
        self._characters += len(text)


@dataclass(slots=True)
class _Clause:
    text: str
    start: int
    end: int
    is_whole: bool = False
    step: int = 0


class Spoken:
    """The text of one reply, laid along its audio.  Positions are bytes of mu-law."""

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace = pace or Pace()
        self._clauses: list[_Clause] = []

    def __repr__(self) -> str:
        return f"<Spoken {self.text!r:.60}>"

    @property
    def text(self) -> str:
        """Everything that was given to TTS so far."""
        return " ".join(clause.text for clause in self._clauses if clause.text)

    def begin_again(self) -> None:
        """Nothing was given to TTS."""
        self._clauses.clear()

    def begin(self, text: str, position: int, step: int = 0) -> None:
        """The audio of `text` starts at `position`.

        `step` counts how often the model was asked before it: between two steps it used tools.
        """
        self._clauses.append(_Clause(text.strip(), position, position, step=step))

    def skip(self, start: int, end: int) -> None:
        """What lies between two positions is sound, but no words."""
        self._clauses.append(_Clause("", start, end, is_whole=True))

    def extend(self, position: int) -> None:
        """The audio of the newest clause reaches `position`."""
        if self._clauses:
            self._clauses[-1].end = position

    def grow(self, text: str, position: int) -> None:
        """More of the newest clause's text is known, its audio still to come; or of a first one."""
        if not self._clauses or self._clauses[-1].is_whole:
            self.begin(text, position)
        else:
            self._clauses[-1].text += text

    def complete(self) -> None:
        """All audio of the newest clause has come."""
        if self._clauses:
            clause = self._clauses[-1]
            clause.is_whole = True
            self._pace.learn(clause.text, clause.end - clause.start)

    def abandon(self) -> None:
        """No more audio of the newest clause will come: of its text, what has audio was spoken."""
        if self._clauses and not self._clauses[-1].is_whole:
            clause = self._clauses[-1]
            share = (clause.end - clause.start) / max(1.0, self._length(clause))
            clause.text, clause.is_whole = _whole_words(clause.text, share), True

    def truncate(self, position: int) -> None:
        """What lies behind `position` was taken back before anybody heard it."""
        while self._clauses and self._clauses[-1].start >= position:
            self._clauses.pop()
        if self._clauses and self._clauses[-1].end > position:
            clause = self._clauses[-1]
            clause.text = _whole_words(
                clause.text, (position - clause.start) / self._length(clause)
            )
            clause.end, clause.is_whole = position, True

    def heard(self, position: int) -> str:
        """Return the words that were heard when `position` bytes had been played."""
        return " ".join(filter(None, self.heard_by_step(position).values()))

    def heard_by_step(self, position: int | None = None) -> dict[int, str]:
        """Return the same by the steps that they belong to; without a position, everything."""
        words: dict[int, list[str]] = {}
        for clause in self._clauses:
            said = words.setdefault(clause.step, [])
            end = clause.start + self._length(clause)
            is_heard = position is None or position >= end
            if is_heard and (position is None or clause.is_whole or end > clause.start):
                said.append(clause.text)
                continue
            assert position is not None
            if position > clause.start:
                share = (position - clause.start) / (end - clause.start)
                said.append(_whole_words(clause.text, share))
            break
        return {step: " ".join(filter(None, said)) for step, said in words.items()}

    def _length(self, clause: _Clause) -> float:
        """Bytes of a clause's audio, known or expected."""
        so_far = clause.end - clause.start
        if clause.is_whole:
            return so_far
        return max(so_far, self._pace.bytes_per_character * len(clause.text))


def _whole_words(text: str, share: float) -> str:
    """Cut `text` after the last word that lies wholly within its first `share` (0 to 1)."""
    end = int(len(text) * share)
    if end >= len(text) or text[end].isspace():
        return text[:end].rstrip()
    cut = text[:end]
    if not any(character.isspace() for character in text):
        # A script without spaces is heard by the character; a single word is heard whole or not.
        return cut if _is_unspaced(text) else ""
    return cut[: max((i for i, c in enumerate(cut) if c.isspace()), default=0)].rstrip()


def _is_unspaced(text: str) -> bool:
    """Whether the script writes no spaces: Thai, Lao, Khmer, kana, ideographs."""
    ranges = (("\u0e00", "\u0eff"), ("\u1780", "\u17ff"), ("\u3040", "\uffff"))
    return any(low <= c <= high for c in text for low, high in ranges)
