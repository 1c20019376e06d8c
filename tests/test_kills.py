"""A command that is killed goes on when it is given again, and ends with the same bytes and nothing beside them."""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lape.cli import run
from lape.values.space import NeuronSpace
from support import child
from support.made import made_stats
from support.planted import LANGUAGES, planted_folder, word
from support.worded import judged_by_words, prompts

pytestmark = pytest.mark.usefixtures("one_thread")

EACH = "".join(f" --{{0}} {language}=HERE/{language}{{1}}.txt" for language in LANGUAGES)
TWO = " --text en=HERE/en.txt --text fr=HERE/fr.txt"
OTHER, PARALLEL, EVALUATION = EACH.format("text", "2"), EACH.format("parallel", "2"), EACH.format("evaluation", "2")
RECORD = f"record HERE/model{TWO} --document line --row-tokens 64 --batch-tokens 128 --checkpoint-seconds 0 --device cpu --out OUT"
COMMANDS = {
    "record": f"{RECORD} --residual --histogram --per-text --most-texts 20 --attribution 200",
    "record until": f"{RECORD} --until 0.99",
    "merge": "merge HERE/0.safetensors HERE/1.safetensors --out OUT",
    "merge to a file": "merge HERE/0.safetensors HERE/1.safetensors --out OUT.safetensors",
    "perplexity": f"perplexity HERE/model HERE/run{OTHER} --draws 1 --resamples 50 --device cpu --out OUT",
    "force": "force HERE/model --run HERE/run --questions en=HERE/en2.txt --questions fr=HERE/fr2.txt --pairs en-fr --new-tokens 4"
    f" --candidates 2 --resamples 50 --families none neurons ceiling{TWO}{EVALUATION} --device cpu --out OUT",
    "study": f"study HERE/model{EACH.format('text', '')}{PARALLEL} --parts layers,perplexity,overlap --tokens 250 --resamples 50 --draws 1"
    " --device cpu --out OUT",
    "confusion": "confusion HERE/model --prompts HERE/mine.jsonl --new-tokens 4 --device cpu --out OUT",
    "fix": f"fix HERE/model --answer fr --avoid en --prompts HERE/mine.jsonl{EACH.format('text', '')} --strengths 20 --sets difference:4"
    " --new-tokens 6 --repetition-penalty 1 --device cpu --out OUT",
}
"""HERE stands for the planted folder, and OUT for what is written."""
CHANGES = ("open", "os.rename")
"""Steps that write a file, or put it in its place."""
LAST = 12
"""Steps at the end of a command, where a result is put in its place: a kill before each is tried."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = planted_folder(tmp_path_factory.mktemp("kills"))
    for seed in range(2):  # 18 MB each, so that they are not written in a moment
        made_stats(seed, space=NeuronSpace.dense(4, 20_000), sums=True).save(folder / f"{seed}.safetensors")
    asked = [(f"{one.text} {word(language, 5)}", language) for one in prompts() for language in LANGUAGES]
    lines = [json.dumps({"prompt": text, "language": language}) for text, language in asked]
    (folder / "mine.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def forked() -> Any:
    """Processes forked from one that has imported everything: a start costs milliseconds."""
    context = multiprocessing.get_context("forkserver")
    verbs = [f"lape.cli.{words.split()[0]}" for words in COMMANDS.values()]
    context.set_forkserver_preload(["support.child", *verbs, "matplotlib.pyplot", "transformers"])
    return context


@dataclass
class Killed:
    """A command that is killed, beside what it wrote when it was left alone."""

    context: Any
    words: list[str]
    out: Path
    """The folder that holds the result, and nothing else in the end."""
    whole: dict[str, bytes]
    events: tuple[str, ...] = ()
    """Changes of that folder which the command makes, its steps: see `child.command`."""
    seconds: float = 0.0
    kills: int = 0
    """Those that left something."""
    writing: int = 0
    """Of these, those in the middle of a file."""
    resumed: int = 0
    """Runs that began where a killed one had left something."""

    def __post_init__(self) -> None:
        began = time.monotonic()
        self.end()
        self.seconds = time.monotonic() - began
        self.events = tuple(json.loads(self._said.with_suffix(".steps").read_text()))

    @property
    def steps(self) -> int:
        return len(self.events)

    @property
    def _said(self) -> Path:
        return self.out.with_name("said.txt")

    def start(self, last: int = 0) -> Any:
        """The same command in a process of its own, which dies before its `last` step."""
        process = self.context.Process(target=child.command, args=(self.words, self.out, self._said, last))
        process.start()
        return process

    def kill_before(self, step: int) -> None:
        """Start it, and let it die before a step."""
        self._killed(self.start(step))

    def kill_after(self, seconds: float) -> None:
        """Start it, and kill it after a while."""
        process = self.start()
        process.join(seconds)
        process.kill()
        self._killed(process)

    def kill_writing(self, seconds: float) -> None:
        """Start it, and kill it a while after it began to write a file."""
        before, process = set(self.out.rglob("*.tmp")), self.start()
        while process.is_alive() and set(self.out.rglob("*.tmp")) <= before:
            time.sleep(0.0005)
        time.sleep(seconds)
        process.kill()
        self._killed(process)

    def _killed(self, process: Any) -> None:
        process.join(120)
        if process.exitcode == 0:  # it was quicker
            self._same()
            return
        assert process.exitcode == -9, self._said.read_text()
        left = contents(self.out)
        self.kills += bool(left)
        self.writing += any(name.endswith(".tmp") for name in left)
        if self.done():
            self.end()

    def done(self) -> bool:
        """Whether the result is in its place."""
        return any((self.out / name).is_file() for name in self.whole)

    def end(self) -> None:
        """Give the command again and let it end. Killed when all was in its place, it is refused: there is nothing left to do."""
        done, process = self.done(), self.start()
        self.resumed += bool(contents(self.out)) and not done
        process.join(120)
        said = self._said.read_text()
        assert process.exitcode == (2 if done else 0), said
        assert not done or "exists already" in said
        self._same()

    def _same(self) -> None:
        """The result is there, byte by byte the same, and nothing else; afterwards nothing is."""
        found = contents(self.out)
        assert found.keys() == self.whole.keys()
        assert [name for name in found if found[name] != self.whole[name]] == []
        shutil.rmtree(self.out)
        self.out.mkdir()


TIME = re.compile(rb"20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00| UTC)?")


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder; folders as nothing, and any time as any other."""
    return {
        str(one.relative_to(folder)): TIME.sub(b"TIME", one.read_bytes()) if one.is_file() else b""
        for one in folder.rglob("*")
    }


@pytest.fixture
def killed(forked: Any, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a `Killed` of a command, which has run once in this process: its strings hash otherwise than in those that are killed."""

    def make(name: str) -> Killed:
        out = tmp_path / "out"
        out.mkdir()
        words = COMMANDS[name].replace("HERE", str(here)).replace("OUT", str(out / "x")).split()
        monkeypatch.setattr("sys.argv", ["lape", *words])
        if words[0] in child.JUDGED:
            judged_by_words(monkeypatch)
        assert run(words) == 0
        whole = contents(out)
        shutil.rmtree(out)
        out.mkdir()
        return Killed(forked, words, out, whole)

    return make


@pytest.mark.parametrize("name", ["record", "perplexity", "study", "confusion", "fix"])
def test_killed_twice_a_run_ends_with_the_same_bytes(killed: Any, name: str) -> None:
    one = killed(name)
    one.kill_before(one.steps // 2)
    one.kill_writing(0)
    assert one.resumed or one.out.exists()
    one.end()
    assert (one.kills, one.resumed) == (2, 1)


def test_a_study_does_not_go_on_with_what_another_recorded(here: Path, tmp_path: Path) -> None:
    """One that was killed before its folder said which study it belongs to, or when it no longer did."""
    shutil.copytree(here / "run", tmp_path / "x.partial" / "recorded")
    words = COMMANDS["study"].replace("perplexity,overlap", "layers") + " --record-tokens 300"
    assert run(words.replace("HERE", str(here)).replace("OUT", str(tmp_path / "x")).split()) == 0
    assert json.loads((tmp_path / "x" / "recorded" / "run.json").read_text())["options"]["tokens"] == 300


@pytest.mark.soak
@pytest.mark.parametrize("name", ["record", "confusion", "fix"])
def test_killed_before_twenty_of_its_writes_and_renames_a_command_ends_with_the_same_bytes(
    killed: Any, name: str
) -> None:
    one = killed(name)
    changes = [step for step, event in enumerate(one.events, 1) if event in CHANGES]
    steps = sorted({changes[k * (len(changes) - 1) // 24] for k in range(25)})
    assert len(steps) >= 20
    for step in steps:
        one.kill_before(step)
        if contents(one.out):
            one.end()


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_twenty_times_and_at_each_of_its_last_steps_a_command_ends_with_the_same_bytes(
    killed: Any, name: str
) -> None:
    one, seed = killed(name), random.randrange(10**6)
    chance = random.Random(seed)
    print(f"\n{name}: seed {seed}, {one.steps} steps, {one.seconds:.1f} s")  # noqa: T201
    while one.kills < 20:
        share = chance.random() ** 2  # seldom so late that nothing is left to go on with
        kind = chance.choice(["before", "after", "writing", "writing"])
        if kind == "before":
            one.kill_before(1 + int(one.steps * share))
        elif kind == "after":
            one.kill_after(one.seconds * share)
        else:
            one.kill_writing(chance.uniform(0, 0.05))
    one.end()
    print(f"{one.kills} kills, {one.writing} in the middle of a file, {one.resumed} gone on with")  # noqa: T201
    for step in range(one.steps, max(one.steps - LAST, 0), -1):
        one.kill_before(step)
        if contents(one.out):
            one.end()
