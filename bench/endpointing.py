"""How well each VAD finds where speech begins and ends, in noise: the experiment behind the gate.

Five recorded utterances, cut at phrase boundaries, are laid on a telephone line: 20 s of line
before the first, 2 s between them, noise over all of it, mu-law.  Each VAD drives the real turn
detector.  No clock is read: same seeds, same table, on any machine.

    false  onsets outside speech (and the most of them on one line)
    miss   utterances not found             on    ms from the real start to the onset
    cuts   turns that ended inside speech   off   ms from the real end to the end of the turn
                                            pause ms from the real end to the pause

The real start and end are the first and last 20 ms less than 25 dB below an utterance's loudest.
Noise is white, pink, or babble (six speakers at once, of the same recordings); the signal-to-noise
ratio is that of the means of all speech and of all noise.

The last rows are two recordings as they are, with the faint tail behind the last word, over
digital silence or white noise of so many dBFS.  There an utterance ends with the last 20 ms within
34 dB of its loudest.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from voicecore.audio import FRAME_BYTES, FRAME_MS, SAMPLE_RATE, mulaw, wav
from voicecore.audio.vad import GatedVad, GateRules, WebrtcVad
from voicecore.audio.voicing import Voicing
from voicecore.contracts import VAD
from voicecore.dialogue.turns import Detector, SpeechPaused, SpeechStarted, TurnEnded, TurnRules

Samples = npt.NDArray[np.float64]
Span = tuple[int, int]

HERE = Path(__file__).resolve().parent
RECORDINGS = HERE.parent / "tests" / "audio"
PHRASES = (
    ("hello_world", 0.20, 1.02),
    ("weather_question", 0.40, 1.70),
    ("jfk", 0.30, 2.20),
    ("jfk", 5.36, 7.70),
    ("jfk", 8.12, 10.50),
)
"""Recording, and the seconds between which a phrase of it lies."""

RECORDED = ("hello_world", "weather_question")
"""Recordings of one utterance each, with silence before and behind it."""

NOISES = ("white", "pink", "babble")
RATIOS = (60, 30, 20, 10)
LEAD_S, GAP_S = 20.0, 2.0
LINE_NOISES = (None, -60, -50)
"""dBFS of the noise over whole recordings."""

FIRST_SEED = 301
"""The gate's numbers were chosen on the noises of seeds 1 to 300; it is judged on others."""


@dataclass(frozen=True)
class Contestant:
    """A VAD, fresh for each line, and the rules of the detector that it drives."""

    name: str
    make: Callable[[], VAD]
    rules: TurnRules


@dataclass
class Score:
    """What one VAD made of one kind of line.  Milliseconds; one entry an utterance."""

    contestant: str
    noise: str
    level: str
    false: int = 0
    worst: int = 0
    """The most false onsets on one line."""
    miss: int = 0
    cuts: int = 0
    on: list[int] = field(default_factory=list)
    off: list[int] = field(default_factory=list)
    pause: list[int] = field(default_factory=list)


def frames_of(samples: Samples) -> Samples:
    """Return the whole 20 ms frames of some samples, one a row."""
    whole = len(samples) // FRAME_BYTES
    return samples[: whole * FRAME_BYTES].reshape(whole, FRAME_BYTES)


def recording(name: str) -> Samples:
    """Return the samples of a recording, as 16-bit values."""
    pcm = wav.read(RECORDINGS / f"{name}.wav").pcm
    return np.frombuffer(pcm, dtype="<i2").astype(np.float64)


def extent(frames: Samples, decibels: float) -> tuple[int, int]:
    """Return the first frame within so many dB of the loudest, and the one after the last."""
    power = (frames**2).mean(axis=1)
    loud = np.nonzero(power > power.max() / 10 ** (decibels / 10))[0]
    return int(loud[0]), int(loud[-1]) + 1


def phrases() -> list[Samples]:
    """Cut the utterances, exactly from their first frame to their last."""
    cut = []
    for name, start, end in PHRASES:
        samples = recording(name)[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        frames = frames_of(samples)
        first, last = extent(frames, 25)
        cut.append(frames[first:last].ravel())
    return cut


def noise_of(kind: str, length: int, speech: list[Samples], seed: int) -> Samples:
    """Return noise of mean power 1."""
    chance = np.random.default_rng(seed)
    noise = chance.standard_normal(length)
    if kind == "pink":
        spectrum = np.fft.rfft(noise)
        hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
        noise = np.fft.irfft(spectrum * (hertz > 50) / np.sqrt(np.maximum(hertz, 50)), length)
    elif kind == "babble":
        noise = np.zeros(length)
        for _ in range(6):
            voice = np.concatenate([speech[at] for at in chance.permutation(len(speech))])
            voice = np.roll(voice, chance.integers(len(voice)))
            gain = 10 ** (chance.uniform(-3, 3) / 20) / math.sqrt((voice**2).mean())
            noise += gain * np.resize(voice, length)
    return noise / math.sqrt((noise**2).mean())


def line(kind: str, snr_db: int, seed: int) -> tuple[list[bytes], list[Span]]:
    """Return a line as frames of mu-law, and where in it the utterances lie, in ms."""
    speech = phrases()
    parts = [np.zeros(int(LEAD_S * SAMPLE_RATE))]
    spans, at = [], LEAD_S * 1000
    for phrase in speech:
        end = at + len(phrase) / 8
        spans.append((int(at), int(end)))
        parts += [phrase, np.zeros(int(GAP_S * SAMPLE_RATE))]
        at = end + GAP_S * 1000
    signal = np.concatenate(parts)
    power = (np.concatenate(speech) ** 2).mean()
    noise = noise_of(kind, len(signal), speech, seed) * math.sqrt(power / 10 ** (snr_db / 10))
    return encoded(signal + noise), spans


def whole_line(dbfs: float | None, seed: int) -> tuple[list[bytes], list[Span]]:
    """Return a line on which whole recordings are played, and where speech lies in it, in ms."""
    gap = np.zeros(int(GAP_S * SAMPLE_RATE))
    parts, spans, at = [gap], [], len(gap) // FRAME_BYTES
    for name in RECORDED:
        frames = frames_of(recording(name))
        first, last = extent(frames, 34)
        spans.append(((at + first) * FRAME_MS, (at + last) * FRAME_MS))
        parts += [frames.ravel(), gap]
        at += len(frames) + len(gap) // FRAME_BYTES
    signal = np.concatenate(parts)
    if dbfs is not None:
        noise = np.random.default_rng(seed).standard_normal(len(signal))
        signal += noise * 32768 * 10 ** (dbfs / 20)
    return encoded(signal), spans


def encoded(samples: Samples) -> list[bytes]:
    """Return samples as frames of mu-law."""
    pcm = np.clip(np.rint(frames_of(samples)), -32768, 32767).astype("<i2")
    return [mulaw.encode(frame.tobytes()) for frame in pcm]


def lines() -> Iterator[tuple[str, str, Callable[[int], tuple[list[bytes], list[Span]]]]]:
    """Name every kind of line and its level, and what makes one of a seed."""
    for kind, snr_db in itertools.product(NOISES, RATIOS):
        yield kind, f"{snr_db} dB", partial(line, kind, snr_db)
    for dbfs in LINE_NOISES:
        yield "whole", "silent" if dbfs is None else f"{dbfs} dBFS", partial(whole_line, dbfs)


def heard(contestant: Contestant, frames: list[bytes]) -> tuple[list[Span], list[int]]:
    """Return the turns that the detector makes of a line, and its pauses, in ms."""
    vad, detector = contestant.make(), Detector(contestant.rules)
    turns: list[Span] = []
    pauses = []
    start = None
    for count, frame in enumerate(frames, 1):
        for event in detector.hear(frame, vad.hear(frame)):
            if isinstance(event, SpeechStarted):
                start = count * FRAME_MS
            elif isinstance(event, SpeechPaused):
                pauses.append(count * FRAME_MS)
            elif isinstance(event, TurnEnded) and start is not None:
                turns.append((start, count * FRAME_MS))
                start = None
    if start is not None:
        turns.append((start, len(frames) * FRAME_MS))
    return turns, pauses


def judge(score: Score, spans: list[Span], turns: list[Span], pauses: list[int]) -> None:
    """Add what was heard of one line to a score."""
    found: set[Span] = set()
    for begin, end in spans:
        mine = [turn for turn in turns if begin <= turn[0] < end]
        if not mine:
            score.miss += 1
            continue
        found.update(mine)
        score.cuts += sum(turn[1] < end for turn in mine)
        score.on.append(mine[0][0] - begin)
        score.off.append(mine[-1][1] - end)
        last = [pause for pause in pauses if mine[-1][0] < pause < mine[-1][1]]
        score.pause += [last[-1] - end] if last else []
    false = len(set(turns) - found)
    score.false += false
    score.worst = max(score.worst, false)


def one_gate(margin: float) -> Contestant:
    """webrtcvad behind a single gate, its hangover counted but 80 ms of it taken off."""
    rules = GateRules(
        voiced_margin=margin,
        onset_prominence=-200,
        voice_prominence=-200,
        faint_margin=-200,
        unclassified_margin=200,
        faint_frames=1_000_000,
        speech_range=200,
    )
    return Contestant(
        f"one gate, {margin:.0f} dB", lambda: GatedVad(3, rules), TurnRules(faint_hold_ms=80)
    )


class SileroVad:
    """The neural model that other frameworks use, on windows of 256 samples."""

    def __init__(self, threshold: float) -> None:
        import torch
        from silero_vad import load_silero_vad

        self._model: Any = load_silero_vad(onnx=True)
        self._tensor: Callable[[Samples], Any] = lambda x: torch.from_numpy(x.astype(np.float32))
        self._threshold = threshold
        self._pcm = b""
        self._voicing = Voicing.SILENT

    def hear(self, frame: bytes) -> Voicing:
        """Judge the windows that end within this frame; without one, the last verdict holds."""
        self._pcm += mulaw.decode(frame)
        while len(self._pcm) >= 512:
            window = np.frombuffer(self._pcm[:512], dtype="<i2") / 32768
            self._pcm = self._pcm[512:]
            speech = float(self._model(self._tensor(window), SAMPLE_RATE)) > self._threshold
            self._voicing = Voicing.VOICED if speech else Voicing.SILENT
        return self._voicing


def contestants(console: Console) -> Iterator[Contestant]:
    """Name who takes part: silero only where it is installed."""
    yield Contestant("webrtcvad 3", lambda: WebrtcVad(3), TurnRules())
    yield one_gate(9)
    yield one_gate(6)
    yield Contestant("ours", GatedVad, TurnRules(faint_hold_ms=0))
    if all(importlib.util.find_spec(name) for name in ("silero_vad", "torch", "onnxruntime")):
        for threshold in (0.5, 0.7):
            yield Contestant(f"silero > {threshold}", partial(SileroVad, threshold), TurnRules())
    else:
        console.print("silero: not installed, left out")


def compete(console: Console, seeds: int) -> list[Score]:
    """Let everybody hear every line."""
    scores = []
    everybody = list(contestants(console))
    for kind, level, make in track(list(lines()), "lines", console=console, transient=True):
        rows = [Score(who.name, kind, level) for who in everybody]
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            frames, spans = make(seed)
            for who, score in zip(everybody, rows, strict=True):
                judge(score, spans, *heard(who, frames))
        scores += rows
    return scores


def figure(values: list[int]) -> str:
    """Return mean ± standard deviation."""
    return f"{np.mean(values):.0f} ± {np.std(values):.0f}" if values else "-"


def table_of(scores: list[Score], seeds: int) -> Table:
    """Return the scores as a table."""
    utterances = f"{len(PHRASES)} utterances (whole: {len(RECORDED)})"
    table = Table(title=f"Endpointing: {seeds} lines a row, of {utterances}")
    for heading in ("noise", "VAD", "false", "miss", "cuts", "on, ms", "off, ms", "pause, ms"):
        table.add_column(heading, justify="left" if heading in ("noise", "VAD") else "right")
    for (noise, level), rows in itertools.groupby(scores, lambda s: (s.noise, s.level)):
        for at, row in enumerate(rows):
            table.add_row(
                "" if at else f"{noise} {level}",
                row.contestant,
                f"{row.false} ({row.worst})" if row.false else "·",
                *(str(count) if count else "·" for count in (row.miss, row.cuts)),
                *(figure(values) for values in (row.on, row.off, row.pause)),
            )
        table.add_section()
    return table


def plot(scores: list[Score], path: Path) -> None:
    """Draw the wait after the end of speech, and the errors, over the kinds of line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawing, (above, below) = plt.subplots(2, 1, figsize=(12, 7), sharex=True)
    kinds = list(dict.fromkeys((score.noise, score.level) for score in scores))
    names = list(dict.fromkeys(score.contestant for score in scores))
    for at, name in enumerate(names):
        mine = [score for score in scores if score.contestant == name]
        place = np.arange(len(kinds)) + (at - (len(names) - 1) / 2) * 0.12
        mean = [np.mean(score.off) if score.off else np.nan for score in mine]
        spread = [np.std(score.off) if score.off else 0 for score in mine]
        above.errorbar(place, mean, yerr=spread, fmt="o", markersize=4, capsize=2, label=name)
        below.bar(place, [s.false + s.miss + s.cuts for s in mine], width=0.11, label=name)
    above.axhspan(280, 320, color="0.9", label="300 ms ± one frame")
    above.set(ylim=(0, 700), ylabel="ms from end of speech to end of turn")
    below.set(ylabel="false onsets + misses + cuts")
    below.set_xticks(range(len(kinds)), [f"{noise}\n{level}" for noise, level in kinds])
    above.legend(loc="upper left", fontsize=8, ncols=3)
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def main() -> None:
    """Run the experiment and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=24, metavar="N", help="lines a row (24)")
    parser.add_argument(
        "--out", type=Path, default=HERE / "results", metavar="DIR", help="where results go"
    )
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds: at least 1")
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, width=100)
    machine = f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}"
    console.print(f"{machine}; {options.seeds} lines a row")
    scores = compete(console, options.seeds)
    console.print(table_of(scores, options.seeds))
    stem = options.out / "endpointing"
    stem.with_suffix(".txt").write_text(console.export_text())
    result = {"machine": machine, "seeds": options.seeds, "scores": [asdict(s) for s in scores]}
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    plot(scores, stem.with_suffix(".png"))
    console.print(f"written: {stem}.txt, .json, .png")


if __name__ == "__main__":
    main()
