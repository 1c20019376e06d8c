"""Recorded text is recognised however it is spaced, cased, punctuated, joined or cut; other text is not."""

from __future__ import annotations

import hashlib
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.corpus import TextOptions, prepare
from lape.data.fingerprints import SHINGLE, SPAN, Fingerprints, LineHashes, share_known
from lape.data.texts import Documents
from support.tiny import tiny_tokenizer

LAW = settings(deadline=None, max_examples=40)
KNOWN = 0.01


def sentences(count: int, seed: int, letters: str = "abcdefghijklmnopqrstuvwxyz", words: str = " ") -> list[str]:
    random_ = random.Random(seed)
    return [
        words.join("".join(random_.choices(letters, k=random_.randint(2, 9))) for _ in range(22)).capitalize() + "."
        for _ in range(count)
    ]


HAN = "".join(map(chr, range(0x4E00, 0x4E00 + 2000)))
HANGUL = "".join(map(chr, range(0xAC00, 0xAC00 + 2000)))
DEVANAGARI = "कखगघचछजझटठडढतथदधनपफबभमयरलवशसह"
TEXTS = {
    "latin": sentences(80, 0),
    "accents": [line.replace("e", "é") for line in sentences(80, 1)],
    "han": sentences(80, 2, HAN, ""),
    "hangul": sentences(80, 3, HANGUL),
    "devanagari": sentences(80, 4, DEVANAGARI),
}
CHANGES = {
    "nothing": lambda lines: lines,
    "doubled spaces": lambda lines: [line.replace(" ", "  ") for line in lines],
    "non-breaking spaces": lambda lines: [line.replace(" ", "\u00a0") for line in lines],
    "no spaces": lambda lines: [line.replace(" ", "") for line in lines],
    "capitals": lambda lines: [line.upper() for line in lines],
    "lower case": lambda lines: [line.lower() for line in lines],
    "no full stop": lambda lines: [line.rstrip(".") for line in lines],
    "zero-width spaces": lambda lines: [line.replace(" ", " \u200b") for line in lines],
    "a byte order mark": lambda lines: ["\ufeff" + line for line in lines],
    "decomposed": lambda lines: [line.replace("é", "e\u0301") for line in lines],
    "wide forms": lambda lines: ["".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in one) for one in lines],
    "joined": lambda lines: [" ".join(lines[:40]), " ".join(lines[40:])],
    "cut": lambda lines: [part for one in lines for part in (one[: len(one) * 5 // 6], one[len(one) * 5 // 6 :])],
    "one document of lines": lambda lines: ["\n".join(lines)],
}


def prints(documents) -> torch.Tensor:
    made = Fingerprints()
    for one in documents:
        for piece in [one] if isinstance(one, str) else one:
            made.add(piece)
        made.end()
    return made.tensor()


def known(evaluated, recorded) -> float:
    return share_known((prints(evaluated), torch.empty(0, dtype=torch.int64)), prints(recorded))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("script", TEXTS)
def test_changed_text_is_recognised_in_either_direction(script, change):
    changed = CHANGES[change](TEXTS[script])
    assert known(changed, TEXTS[script]) > 0.2
    assert known(TEXTS[script], changed) > 0.2


@pytest.mark.parametrize("script", TEXTS)
def test_a_recorded_tenth_of_a_text_is_above_the_threshold_and_other_text_shares_nothing(script):
    mine, other = TEXTS[script][:40], TEXTS[script][40:]
    assert known(mine, other) == 0
    assert known([*mine[:4], *other], mine) > KNOWN
    assert known(TEXTS[script][::5], TEXTS[script]) > 0.2


def test_a_common_phrase_and_a_few_words_are_no_recorded_text():
    phrase = "according to the president of the united "
    mine, other = ([phrase + line for line in lines] for lines in (TEXTS["latin"][:40], TEXTS["latin"][40:]))
    assert known(mine, other) == 0
    assert known([*mine, "the cat sat"] * 3, ["A cat sat on the cat, and the cat sat on it", *other]) == 0


def test_a_short_line_is_recognised_by_itself_and_within_a_document():
    lines = [f"{line[:30]}." for line in TEXTS["latin"]]
    assert known(lines, ["\n".join(lines)]) > 0.5
    assert known(["\n".join(lines)], [line.upper() for line in lines]) > 0.3


def test_a_short_document_is_recognised_as_a_whole():
    assert known(["The  CAT sat!"], ["the cat sat", "on the mat"]) == 1
    assert known(["the cat"], ["the cat sat"]) == 0


@LAW
@given(st.data())
def test_texts_that_share_so_many_letters_in_a_row_share_a_fingerprint(data):
    letters = st.text("abcde", min_size=0, max_size=300)
    shared = data.draw(st.text("abcde", min_size=SHINGLE + SPAN - 1, max_size=SHINGLE + SPAN - 1))
    one, two = (data.draw(letters) + shared + data.draw(letters) for _ in range(2))
    assert set(prints([one]).tolist()) & set(prints([two]).tolist())


@LAW
@given(st.lists(st.text("abc 中é\n.", max_size=200), max_size=6))
def test_pieces_do_not_matter(pieces):
    assert torch.equal(prints([pieces]), prints(["".join(pieces)]))
    made, whole = LineHashes(), LineHashes()
    for piece in pieces:
        made.add(piece)
    whole.add("".join(pieces))
    made.end()
    whole.end()
    assert torch.equal(made.tensor(), whole.tensor())


def test_fingerprints_are_few():
    text = " ".join(sentences(2000, 9))
    letters = sum(map(str.isalpha, text))
    assert letters / 50 < len(prints([text])) < letters / 30


def test_text_recorded_by_an_older_version_is_recognised_by_its_lines():
    """Their fingerprints: of each line the first 8 bytes of BLAKE2b over its bytes without white space at its ends."""
    lines = TEXTS["accents"][:20]
    old = torch.tensor(
        [
            int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little", signed=True)
            for line in lines[:5]
        ]
    )
    corpus = prepare("fr", Documents(["\n".join(lines)]), tiny_tokenizer(), TextOptions(), lines=True)
    assert corpus.known(old) == 5 / 20
    assert corpus.known(corpus.fingerprints) == 1
    assert corpus.known(old[:0]) == 0
