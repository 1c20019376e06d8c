"""A task that must not suffer while a way acts: does the model still write Python that runs?

    python benchmarks/confusion/tasks.py MODEL RUN --languages de vi zh --ways none "add × .5" … --out FOLDER

40 functions, asked for in English, run in a process of their own against what they should give, with the paired difference from `none`. The system line
is told where a way tells it. Resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
from pilot import named
from ways import WAYS, Bench, Way

import lape
from lape.measure.bootstrap import Resamples
from lape.measure.generation import SamplingOptions, write
from lape.measure.prompts import conversation
from lape.store import files
from lape.values.heads import head_of
from lape.values.stats import ActivationStats

PYTHON: tuple[tuple[str, str, str], ...] = (
    ("double(x)", "returns twice a number", "double(3) == 6 and double(-1) == -2"),
    ("is_even(n)", "says whether a whole number is even", "is_even(4) and not is_even(7)"),
    ("largest(items)", "returns the largest of a list", "largest([3, 9, 2]) == 9"),
    ("reverse(text)", "returns a string backwards", "reverse('abc') == 'cba'"),
    ("count_vowels(text)", "counts the vowels a, e, i, o, u of a string", "count_vowels('education') == 5"),
    ("factorial(n)", "returns the factorial of n", "factorial(5) == 120 and factorial(0) == 1"),
    (
        "unique(items)",
        "returns a list without duplicates, in order of first appearance",
        "unique([1, 2, 1, 3]) == [1, 2, 3]",
    ),
    (
        "fibonacci(n)",
        "returns the first n Fibonacci numbers as a list, beginning with 0, 1",
        "fibonacci(5) == [0, 1, 1, 2, 3]",
    ),
    (
        "is_palindrome(text)",
        "says whether a string reads the same backwards",
        "is_palindrome('level') and not is_palindrome('abc')",
    ),
    ("sum_digits(n)", "returns the sum of the digits of a positive whole number", "sum_digits(1234) == 10"),
    ("flatten(lists)", "joins a list of lists into one list", "flatten([[1], [2, 3]]) == [1, 2, 3]"),
    ("average(items)", "returns the mean of a list of numbers", "average([2, 4]) == 3"),
    ("word_count(text)", "returns how many words a string has", "word_count('one two  three') == 3"),
    ("gcd(a, b)", "returns the greatest common divisor", "gcd(12, 18) == 6"),
    ("is_prime(n)", "says whether a whole number is prime", "is_prime(13) and not is_prime(1) and not is_prime(9)"),
    ("squares(n)", "returns the squares of 1 to n as a list", "squares(3) == [1, 4, 9]"),
    (
        "capitalise(words)",
        "returns a list of words, each with a capital first letter",
        "capitalise(['ab', 'c']) == ['Ab', 'C']",
    ),
    ("merge(a, b)", "merges two dictionaries, the second winning", "merge({1: 2}, {1: 3, 2: 4}) == {1: 3, 2: 4}"),
    ("second(items)", "returns the second largest of a list of different numbers", "second([5, 1, 4]) == 4"),
    ("celsius(f)", "converts degrees Fahrenheit to Celsius", "abs(celsius(212) - 100) < 1e-9"),
    ("common(a, b)", "returns the sorted items that two lists share", "common([3, 1, 2], [2, 3, 4]) == [2, 3]"),
    (
        "chunks(items, n)",
        "cuts a list into lists of n items, the last may be shorter",
        "chunks([1, 2, 3], 2) == [[1, 2], [3]]",
    ),
    ("leap(year)", "says whether a year is a leap year", "leap(2000) and leap(2024) and not leap(1900)"),
    ("binary(n)", "returns a positive whole number in binary as a string without prefix", "binary(5) == '101'"),
    ("longest(words)", "returns the longest of a list of words", "longest(['a', 'ccc', 'bb']) == 'ccc'"),
    ("remove_spaces(text)", "returns a string without its spaces", "remove_spaces('a b c') == 'abc'"),
    (
        "count(items)",
        "returns a dictionary of how often each item occurs",
        "count(['a', 'b', 'a']) == {'a': 2, 'b': 1}",
    ),
    ("clamp(x, low, high)", "limits a number to a range", "clamp(5, 0, 3) == 3 and clamp(-1, 0, 3) == 0"),
    (
        "rotate(items)",
        "moves the first item of a list to its end and returns the new list",
        "rotate([1, 2, 3]) == [2, 3, 1]",
    ),
    (
        "anagrams(a, b)",
        "says whether two words are anagrams",
        "anagrams('listen', 'silent') and not anagrams('a', 'b')",
    ),
    ("power(x, n)", "returns x to the power of a whole number n of 0 or more", "power(2, 10) == 1024"),
    ("minutes(text)", "turns a time such as '2:30' into minutes", "minutes('2:30') == 150"),
    ("initials(name)", "returns the initials of a name in capitals, such as 'AL'", "initials('ada lovelace') == 'AL'"),
    ("positive(items)", "returns the numbers of a list that are above 0", "positive([-1, 2, 0, 3]) == [2, 3]"),
    ("dot(a, b)", "returns the dot product of two lists", "dot([1, 2], [3, 4]) == 11"),
    ("swap(d)", "swaps the keys and values of a dictionary", "swap({'a': 1}) == {1: 'a'}"),
    ("triangle(n)", "returns 1 + 2 + … + n", "triangle(4) == 10"),
    (
        "starts(words, letter)",
        "returns the words of a list that begin with a letter",
        "starts(['ab', 'b'], 'a') == ['ab']",
    ),
    ("hamming(a, b)", "counts the places in which two strings of equal length differ", "hamming('abc', 'abd') == 1"),
    ("transpose(rows)", "transposes a list of lists", "transpose([[1, 2], [3, 4]]) == [[1, 3], [2, 4]]"),
)
_FENCE = re.compile(r"```(?:python|py)?\s*\n(.*?)(?:```|\Z)", re.DOTALL)


def runs(answer: str, check: str) -> bool:
    """Whether the Python of an answer gives what it should, in a process of its own that has ten seconds."""
    code = "\n".join(_FENCE.findall(answer)) or answer
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", f"{code}\n\n\nassert {check}"],
            timeout=10,
            capture_output=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class Tasks:
    def __init__(self, bench: Bench, out: Path, batch: int) -> None:
        self.bench, self.out, self.batch = bench, out, batch

    def _answers(self, way: Way, language: str, prompts: list[str], new_tokens: int) -> list[str]:
        how = SamplingOptions(new_tokens=new_tokens, batch=self.batch)
        with way.under(self.bench, language):
            found = write(
                self.bench.model, self.bench.tokenizer, prompts, how, processors=way.processors(self.bench, language)
            )
        return [one.text for one in found]

    def _kept(self, name: str, make: Any) -> list[dict[str, Any]]:
        path = self.out / f"{name}.json"
        if not path.is_file():
            files.write_json(path, make())
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def python(self, way: Way, language: str) -> list[dict[str, Any]]:
        def make() -> list[dict[str, Any]]:
            asked = [f"Write a Python function {head} that {what}." for head, what, _ in PYTHON]
            turns = [[{"role": "user", "content": one}] for one in asked]
            told = way.told(language)
            prompts = [conversation(self.bench.tokenizer, one, system=told) for one in turns]
            found = self._answers(way, language, prompts, 192)
            return [
                {"right": runs(said, check), "answer": said} for said, (_, _, check) in zip(found, PYTHON, strict=True)
            ]

        return self._kept(f"python.{language}.{named(way)}", make)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("run")
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--ways", nargs="+", required=True)
    parser.add_argument("--head", help="of ways that scale one: LAYER.HEAD")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = lape.load(given.model, dtype=given.dtype)
    tasks = Tasks(Bench(model, tokenizer, ActivationStats.load(given.run)), given.out, given.batch)
    if given.head:
        tasks.bench.head = head_of(given.head)
    ways = {way.name: way for way in WAYS}
    rows, before = [], {}
    for name in dict.fromkeys(["none", *given.ways]):
        for language in given.languages:
            answers = tasks.python(ways[name], language)
            right = pl.Series([float(one["right"]) for one in answers])
            before.setdefault(language, right)
            drawn = Resamples(len(right), 2000, 0)
            row = {"way": name, "language": language, "task": "python", "n": len(right), "right": right.mean()}
            change = drawn.weights @ (right - before[language]).to_numpy() / len(right)
            rows.append(row | drawn.plain("change", change))
            print(rows[-1], flush=True)
    pl.DataFrame(rows).write_parquet(given.out / "tasks.parquet")


if __name__ == "__main__":
    main()
