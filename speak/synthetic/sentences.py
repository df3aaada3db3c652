"""Random sentences that can be pronounced: syllables, words, phrases and pauses from a seed, in no language.

A sentence says which phones follow each other and where the stress lies; who speaks it, how fast and in which mood is
`voice.py`'s business, so that one sentence can be spoken by anyone.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_ONSETS = (
    "p b t d k g m n f v th dh s z sh ch jh h w y r l".split(),
    (5, 7, 7, 6, 6, 4, 8, 6, 5, 4, 3, 4, 7, 3, 4, 2, 2, 4, 5, 2, 5, 6),
)
_CLUSTERS = tuple(pair.split("-") for pair in "p-l b-r t-r s-t k-l f-r s-p g-r b-l f-l s-m s-w k-r d-r th-r".split())
_NUCLEI = (
    "iy ih eh ae aa ao uh uw ah er ey ay oy aw ow".split(),
    (8, 8, 8, 7, 8, 6, 4, 7, 8, 5, 6, 6, 2, 4, 6),
)
_CODAS = (
    "n t s l m d k z r ng p b v f th sh g ch".split(),
    (10, 8, 7, 7, 7, 6, 6, 5, 5, 3, 5, 3, 3, 4, 2, 2, 2, 1),
)


@dataclasses.dataclass(frozen=True)
class Sentence:
    """What is said. One entry a phone; a pause is the phone `sil` between phrases."""

    phones: tuple[str, ...]
    stress: tuple[int, ...]  # 1 in a stressed syllable, else 0
    syllable: tuple[int, ...]  # which syllable of the sentence; -1 in silence
    phrase: tuple[int, ...]  # which phrase of the sentence, silence counts with the phrase before it
    lengthen: tuple[float, ...]  # how much longer than typical the phone is: 1, more at the end of a phrase
    question: bool  # the pitch rises at the end


def random_sentence(
    generator: np.random.Generator,
    seconds: float,  # about how long at an ordinary tempo, pauses included
) -> Sentence:
    """A sentence of about `seconds` with a pause at both ends and between phrases."""
    rows: list[tuple[str, int, int, int, float]] = [("sil", 0, -1, 0, float(generator.uniform(0.6, 1.4)))]
    spent, syllable, phrase = 0.5, 0, 0
    while spent < seconds or syllable == 0:
        left = max(1, round((seconds - spent) / 0.24))
        syllables = min(int(generator.integers(4, 11)), left)
        first = len(rows)
        while syllables > 0:
            word = min(int(generator.choice(4, p=(0.4, 0.36, 0.18, 0.06))) + 1, syllables)
            stressed = int(generator.integers(0, min(word, 2)))
            function_word = word == 1 and generator.random() < 0.35
            for place in range(word):
                stress = int(place == stressed and not function_word)
                for phone in _syllable(generator, stress, place == word - 1):
                    rows.append((phone, stress, syllable, phrase, 1.0))
                syllable += 1
                spent += 0.24
            syllables -= word
        for row in range(first, len(rows)):  # the last syllable of a phrase is drawn out
            if rows[row][2] == syllable - 1:
                rows[row] = (*rows[row][:4], 1.4)
        rows.append(("sil", 0, -1, phrase, float(generator.uniform(0.6, 1.6))))
        spent += 0.27
        phrase += 1
    question = bool(generator.random() < 0.2)
    phones, stress, syllables_of, phrases, lengthen = zip(*rows, strict=True)
    return Sentence(phones, stress, syllables_of, phrases, lengthen, question)


def _syllable(generator: np.random.Generator, stress: int, last: bool) -> list[str]:
    phones: list[str] = []
    draw = generator.random()
    if draw < 0.14 and stress:
        phones += _CLUSTERS[int(generator.integers(len(_CLUSTERS)))]
    elif draw < 0.92:
        phones.append(_pick(generator, _ONSETS))
    reduced = not stress and generator.random() < 0.45
    phones.append("ax" if reduced else _pick(generator, _NUCLEI))
    if generator.random() < (0.55 if last else 0.22):
        phones.append(_pick(generator, _CODAS))
    return phones


def _pick(generator: np.random.Generator, table: tuple[list[str], tuple[int, ...]]) -> str:
    names, weights = table
    return names[int(np.searchsorted(np.cumsum(weights), generator.random() * sum(weights), side="right"))]
