"""The process in which PocketSphinx recognises English speech: mu-law in, words out.

The wheel's acoustic model was trained on 16 kHz speech.  Telephone speech is resampled to that; of
the settings tried on the recordings of the tests these were the fastest that got the words right:

* At most 3,000 HMMs a frame: 0.3 s for a second of speech on one core; unlimited needs 0.4 to 0.8.
  The second, flat search pass stays: without it fewer words are right.
* The front end is set up anew for each utterance.  Otherwise the running mean of one caller's words
  changes how the next one's are heard.
* The cepstral mean of the utterance, which whole-utterance decoding would use, is measured in a
  pass of its own (a keyword search, 0.035 s a second).  Then the search may run in slices and be
  cancelled between them, without the errors of a running mean ("ah world" for "hello world").
* 200 ms of faint noise on both sides: speech that begins with the first sample is misheard.
"""

from __future__ import annotations

import numpy as np
import pocketsphinx

from ..audio import mulaw
from ..audio.resample import Resampler
from .worker import Answer, Job, serve

MODEL_RATE = 16000
SLICE_BYTES = 2 * MODEL_RATE // 10
"""100 ms: some 20 ms of search between two looks at whether it is still wanted."""

LOUDEST = 0.7 * 32767
MAX_GAIN = 8.0
"""Peaks are brought to `LOUDEST`, but line noise is not made speech."""

MEAN_BYTES = 2 * MODEL_RATE * 4
"""The mean of the first 4 s will do, and is had in 140 ms: this pass cannot be cut."""

_EDGE_SAMPLES = 2 * MODEL_RATE // 10
_EDGE_NOISE = 2.0
"""Standard deviation, of 32767: -84 dBFS.  Digital silence has no logarithm; and with more, the
soft end of a last word is misheard where the utterance was cut at its first pause."""


def _load() -> Answer:
    decoder = pocketsphinx.Decoder(samprate=float(MODEL_RATE), maxhmmpf=3000, loglevel="FATAL")
    search = decoder.current_search()
    decoder.add_keyphrase("mean", "hello")

    def answer(request: bytes, job: Job) -> None:
        job.send(_recognise(decoder, search, _prepared(request), job).encode())

    return answer


def _recognise(decoder: pocketsphinx.Decoder, search: str, pcm: bytes, job: Job) -> str:
    decoder.reinit_feat()
    decoder.activate_search("mean")
    decoder.start_utt()
    decoder.process_raw(pcm[:MEAN_BYTES], full_utt=True)
    decoder.end_utt()
    mean = decoder.get_cmn(False)
    decoder.activate_search(search)
    decoder.set_cmn(mean)
    decoder.start_utt()
    for at in range(0, len(pcm), SLICE_BYTES):
        if job.cancelled():
            break
        decoder.process_raw(pcm[at : at + SLICE_BYTES])
    decoder.end_utt()
    best = decoder.hyp()
    return str(best.hypstr) if best is not None else ""


def _prepared(utterance: bytes) -> bytes:
    """Return mu-law as the 16 kHz PCM that the model likes best."""
    resampler = Resampler(8000, MODEL_RATE)
    wide = resampler.feed(mulaw.decode(utterance)) + resampler.flush()
    samples = np.frombuffer(wide, dtype="<i2").astype(np.float32)
    peak = float(np.abs(samples).max(initial=1.0))
    edge = np.random.default_rng(0).normal(0, _EDGE_NOISE, _EDGE_SAMPLES)
    loud = np.concatenate([edge, samples * min(LOUDEST / peak, MAX_GAIN), edge])
    return bytes(np.clip(np.rint(loud), -32768, 32767).astype("<i2"))


if __name__ == "__main__":
    serve(_load)
