"""What must hold of a server, and what is measured on it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from engines import BASE
from server import Answer, Server

from lape.data.language_id import identifier

IN_LANGUAGE = 0.75
"""At least this share of an adapter's answers are in its language."""
WORSE = 0.02
"""By this much an engine may agree less with lape under an edit than without one."""
NOISE = 2
"""So many answers more than the base's may change when requests run at once."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    holds: bool
    said: str
    figures: Mapping[str, float] = field(default_factory=dict)
    """Measure -> what was found; of agreement by what was asked: `agreement: to-fr`."""


def switches(server: Server, questions: int, tokens: int, identify: str) -> Iterator[Check]:
    """One server, each request with its adapter: answers in its language, and the base as it was before."""
    made = server.made
    prompts = made.prompts[:questions]
    guess = identifier(identify, ("en", *made.languages.values()))
    ask = _asker(server, prompts, tokens)
    before = ask(BASE)
    for name, language in made.languages.items():
        wrote = ask(name)
        share = statistics.mean(one.language == language for one in guess(wrote))
        moved = sum(a != b for a, b in zip(wrote, before, strict=True))
        said = f"{name}: {share:.0%} of {len(prompts)} answers in {language}, {moved} differ from the base's"
        figures = {f"in language: {name}": share}
        yield Check(share >= IN_LANGUAGE and moved > 0, f"{said}; the first: {wrote[0]!r}", figures)
    share = statistics.mean(one.language in made.languages.values() for one in guess(before))
    yield Check(share <= 1 - IN_LANGUAGE, f"base: {share:.0%} in one of these; the first: {before[0]!r}")
    wrote = server.curl()
    yield Check(guess([wrote])[0].language == next(iter(made.languages.values())), f"the page's request: {wrote!r}")
    changed = sum(a != b for a, b in zip(ask(BASE), before, strict=True))
    yield Check(not changed, f"base after that: {changed} of {len(prompts)} answers differ from before")


def at_once(server: Server, requests: int, tokens: int) -> Iterator[Check]:
    """Requests of all adapters at once: each is answered as it is alone, as far as the base is; and the base among them most of all."""
    made = server.made
    names = [BASE, *made.adapters]
    mixed = [(names[k % len(names)], made.prompts[k % len(made.prompts)]) for k in range(requests)]
    plain = [(BASE, prompt) for _, prompt in mixed]

    def ask(one: tuple[str, str]) -> str:
        return server.ask(*one, tokens).text

    def changed(many: Sequence[tuple[str, str]]) -> list[bool]:
        alone = [ask(one) for one in many]
        with ThreadPoolExecutor(requests) as pool:
            return [a != b for a, b in zip(alone, pool.map(ask, many), strict=True)]

    by_itself, among = changed(plain), changed(mixed)
    said = f"{requests} requests at once: {sum(among)} answered otherwise than alone, over {len(names) - 1} adapters and the base"
    figures = {"changed at once: base alone": float(sum(by_itself)), "changed at once: mixed": float(sum(among))}
    said = f"{said}; {sum(by_itself)} where all ask the base"
    yield Check(sum(among) <= sum(by_itself) + NOISE, said, figures)
    its_own = [k for k, (name, _) in enumerate(mixed) if name == BASE]
    said = f"the base among adapters: {sum(among[k] for k in its_own)} of {len(its_own)} answered otherwise than alone"
    yield Check(sum(among[k] for k in its_own) <= sum(by_itself[k] for k in its_own) + 1, said)


def agrees(server: Server, tokens: int, split: Callable[[str], Sequence[int]], workers: int = 8) -> Iterator[Check]:
    """Greedy tokens equal lape's own as often with an adapter as without."""
    made = server.made

    def shares(name: str) -> dict[str, tuple[float, int]]:
        with ThreadPoolExecutor(workers) as pool:
            wrote = list(pool.map(lambda prompt: server.ask(name, prompt, tokens).text, made.prompts))
        found = {}
        for label in (name, f"{name}, at run time"):
            if label in made.local:
                same = [_same(split(a), split(b), tokens) for a, b in zip(wrote, made.local[label], strict=True)]
                found[label] = (statistics.mean(same), sum(one == 1 for one in same))
        return found

    least = 0.0
    for name in (BASE, *made.adapters):
        for label, (share, whole) in shares(name).items():
            said = f"{share:.3f} of the first {tokens} tokens as lape's, {whole} of {len(made.prompts)} answers whole: {label}"
            # an edit that is fitted is not its adapter: what it is here is said, and judged at export
            judged = label == name or name.startswith("off-")
            figures = {f"agreement: {label}": share}
            yield Check(share >= least or not judged, said if judged else f"{said} (not judged)", figures)
            if name == BASE:
                least = share - WORSE


def costs(server: Server, rounds: int, tokens: int, workers: int = 8) -> tuple[list[str], dict[str, float]]:
    """Throughput and time to the first piece, in turns, as ratios to the base; the ratio of the base to itself is the noise."""
    made = server.made
    names = [BASE, "base again", *made.adapters]
    speed: dict[str, list[float]] = {name: [] for name in names}
    first: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names:
            model = BASE if name == "base again" else name
            some = [f"{number}. {prompt}" for prompt in made.prompts[:workers]]  # nobody has this in a cache

            def ask(prompt: str, model: str = model, tokens: int = tokens) -> Answer:
                return server.ask(model, prompt, tokens, **server.engine.endless)

            opened = ask(f"{name} {number}. {made.prompts[-1]}", tokens=2)
            with ThreadPoolExecutor(workers) as pool:
                begun = list(pool.map(ask, [f"{name} {one}" for one in some]))
            if number:  # the first round warms up
                speed[name].append(sum(one.tokens for one in begun) / max(one.seconds for one in begun))
                first[name].append(opened.first)
    rows, figures = (
        ["| | tokens/s, ratio | first token, ratio | tokens/s | first token, s |", "|---|---|---|---|---|"],
        {},
    )
    for name in names:
        found = {}
        for measure, times in (("tokens per second", speed), ("first token", first)):
            found[f"{measure}, ratio"] = statistics.median(a / b for a, b in zip(times[name], times[BASE], strict=True))
            found[measure] = statistics.median(times[name])
        figures |= {f"{measure}: {name}": value for measure, value in found.items()}
        speeds, firsts = (
            [found[f"{measure}, ratio"], found[measure]] for measure in ("tokens per second", "first token")
        )
        rows.append(f"| {name} | {speeds[0]:.2f} | {firsts[0]:.2f} | {speeds[1]:.1f} | {firsts[1]:.2f} |")
    return rows, figures


def _asker(server: Server, prompts: Sequence[str], tokens: int) -> Callable[[str], list[str]]:
    return lambda name: [server.ask(name, prompt, tokens).text for prompt in prompts]


def _same(wrote: Sequence[int], wanted: Sequence[int], tokens: int) -> float:
    """The share of the tokens before the first that differs; an answer that ended early counts as whole where both end there."""
    if list(wrote) == list(wanted):
        return 1.0
    pairs = zip(wrote, wanted, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(wrote), len(wanted))) / tokens
