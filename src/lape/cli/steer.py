"""`lape steer`: an answer as the model gives it, and as it gives it when steered to another language."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lape.cli.answers import CONDITIONS, Answer, counted, judged, save, show, show_prompt, show_remark, streamed
from lape.cli.asked import Question, questions_of, sources_of
from lape.cli.common import aside, out, progress, written
from lape.cli.flags import FLAGS, Out, Switch
from lape.cli.inputs import LOADING, Loading, load_matching, run_of
from lape.data.language_id import Teller
from lape.edit.steer import SteerOptions, steering
from lape.edit.steer import steer as steered
from lape.measure.bench import named_sets
from lape.measure.generation import SamplingOptions, stream, write
from lape.measure.prompts import first_of, stops
from lape.progress import Progress
from lape.store import files
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

_STEER, _SAMPLING = SteerOptions(), SamplingOptions()


def steer(
    model: str,
    *prompts: str,
    to: str,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    run: Path | None = None,
    file: Annotated[Path | None, Parameter(name=("--file", "--messages"))] = None,
    system: str | None = None,
    sets: str = "difference:100",
    bare: Switch = False,
    answers: Out | None = None,
    overwrite: Switch = False,
    sampling: Annotated[SamplingOptions, FLAGS] = _SAMPLING,
    options: Annotated[SteerOptions, FLAGS] = _STEER,
    loading: Loading = LOADING,
) -> None:
    """Write the unsteered and the steered answer to each prompt, with the language that each seems to be in.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample; or a run's folder alone, which knows its model.
    prompts
        Questions, each in quotes.
    to
        The language to steer to.
    source
        The language of the prompts. Default: told from each prompt, or where it is not certain, that of most of them (extra lid).
    run
        A run's folder, with statistics. Default for sample: the demo's.
    file
        Prompts, one per line; in a .jsonl file, lines such as {"prompt": "…"} or, for a chat model, {"messages": […]}.
    system
        What a chat model is told first, such as "Always answer in French."; other models read it before the question.
    sets
        Which neurons: lape (those of the run), or difference:N (the N largest differences of mean activation).
    bare
        Give the prompt as it is, not as a question to answer.
    answers
        A .jsonl file to write: each answer with its prompt, condition, language, certainty, whether it was cut, and all options.
    overwrite
        Replace an existing file.
    """
    asked = questions_of(prompts, file, system=system, bare=bare)
    if answers is not None:
        files.refuse_existing(answers, overwrite)
    folder = run_of(model, run)
    stats = ActivationStats.load(folder)
    target, names = stats.canonical(to), Teller(stats.languages)
    texts = [one.text for one in asked]
    sources = [stats.canonical(source)] * len(asked) if source else sources_of(names, texts, stats.languages, target)
    neurons = named_sets(stats, sets, folder)
    for one in dict.fromkeys(sources):
        steering(neurons, stats, options, source=one, to=target)  # refuses before the model is loaded
    with progress() as report:
        loaded, tokenizer = load_matching(model, loading, report, statistics=stats, neurons=neurons)
        ask = Asking(loaded, tokenizer, neurons, stats, options, sampling, names, target, system, bare)
        word_by_word = len(asked) == 1 and out.is_terminal
        found = [] if word_by_word else ask.all(asked, sources, report)
    found = found or ask.streamed(asked[0], sources[0])
    if not names.missing:
        out.print(counted(found))
    if answers is not None:
        how = {"model": model, "run": str(folder), "sets": sets, "system": system, "bare": bare}
        save(answers, found, asked, {**how, **asdict(sampling), **asdict(options)})
        written(answers)


@dataclass(frozen=True)
class Asking:
    """A model that is asked, unsteered and steered."""

    model: Any
    tokenizer: Any
    neurons: LanguageNeurons
    stats: ActivationStats
    options: SteerOptions
    sampling: SamplingOptions
    names: Teller
    target: str
    system: str | None
    bare: bool

    def all(self, asked: Sequence[Question], sources: Sequence[str], report: Progress) -> list[Answer]:
        """Both answers to each prompt, shown batch by batch."""
        found: list[Answer] = []
        for at in range(0, len(asked), self.sampling.batch):
            report("answering", at, len(asked))
            part = slice(at, at + self.sampling.batch)
            pairs = self._written(asked[part], sources[part])
            with aside():
                for question, pair in zip(asked[part], pairs, strict=True):
                    self._show(question, pair)
            found += [one for pair in pairs for one in pair]
        report("answering", len(asked), len(asked))
        return found

    def _written(self, asked: Sequence[Question], sources: Sequence[str]) -> list[list[Answer]]:
        """For each prompt its answers. What is steered alike is asked at once."""
        found: list[list[Answer]] = [[] for _ in asked]
        texts = [self._prompt(question, source) for question, source in zip(asked, sources, strict=True)]
        groups = [(CONDITIONS[0], source, [*range(len(asked))]) for source in sources[:1]]
        groups += [
            (CONDITIONS[1], source, [at for at, one in enumerate(sources) if one == source])
            for source in dict.fromkeys(sources)
        ]
        for condition, source, places in groups:
            with self._edited(condition, source):
                answers = write(self.model, self.tokenizer, [texts[at] for at in places], self.sampling)
            for at, answer in zip(places, answers, strict=True):
                end = first_of(answer.text, self._stops)
                by_length = answer.cut and end == len(answer.text)
                pair = (sources[at], self.target)
                found[at].append(judged(asked[at], pair, condition, answer.text[:end], self.names, cut=by_length))
        return found

    def streamed(self, question: Question, source: str) -> list[Answer]:
        """Both answers to a prompt, shown word by word."""
        show_prompt(question, source, self.target)
        text, found = self._prompt(question, source), []
        for condition in CONDITIONS:
            with self._edited(condition, source):
                pieces = stream(self.model, self.tokenizer, text, self.sampling, self._stops)
                answer, by_length = streamed(condition, pieces)
            pair = (source, self.target)
            found.append(judged(question, pair, condition, answer, self.names, cut=by_length))
            show_remark(condition, self._remark(found[-1]))
        out.print()
        return found

    def _show(self, question: Question, answers: Sequence[Answer]) -> None:
        show_prompt(question, answers[0].source, self.target)
        for one in answers:
            show(one, self._remark(one))
        out.print()

    def _remark(self, answer: Answer) -> str:
        return answer.remark(self.sampling.new_tokens, told=not self.names.missing)

    def _prompt(self, question: Question, source: str) -> str:
        how: dict[str, Any] = {"system": self.system, "bare": self.bare}
        return question.prompt(self.tokenizer, source=source, target=self.target, **how)

    @property
    def _stops(self) -> list[str]:
        """Where an answer is over: at a next question that the model asks itself."""
        return [] if self.bare else stops(self.target)

    def _edited(self, condition: str, source: str) -> AbstractContextManager[Any]:
        if condition == CONDITIONS[0]:
            return nullcontext()
        return steered(self.model, self.neurons, stats=self.stats, source=source, to=self.target, **vars(self.options))
