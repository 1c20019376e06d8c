"""Tasks of reading for `lape eval`, from XQuAD's files: which of four answers from a passage answers a question about it?

    python benchmarks/reading.py data/xquad --languages en es vi zh --questions 400 --out tasks
    lape eval MODEL --run RUN --tasks reading_es,reading_vi,reading_zh --include-path tasks --out eval

Passage, question and the word for answer stand in the frame of the language, without a chat template. The wrong answers answer other questions about the
same passage, or the same article where it has too few. `acc_norm` of lm-eval takes the answer of highest log-likelihood a byte; chance is a quarter.
Questions are spread evenly over the file, and the same in every language, since the files are parallel.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from lape.experiments.answering.passages import passage_prompt, spread
from lape.experiments.answering.squad import Question, read_squad

TASK = """\
task: reading_{language}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
target_delimiter: " "
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}, {{metric: acc_norm, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def choices(one: Question, asked: list[Question], seed: int) -> tuple[list[str], int]:
    """Four answers in an order drawn for the question, and where the right one is; fewer where the article has no more."""
    near = [other for other in asked if other.context == one.context]
    far = [other for other in asked if other.article == one.article and other.context != one.context]
    wrong = dict.fromkeys(other.answers[0] for other in (*near, *far))
    found = [text for text in wrong if text not in one.answers][:3]
    drawn = [one.answers[0], *found]
    random.Random(f"{seed} {one.number}").shuffle(drawn)
    return drawn, drawn.index(one.answers[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xquad", type=Path, help="the folder of TAG.json")
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for language in given.languages:
        asked = read_squad(given.xquad / f"{language}.json")
        rows = []
        for one in spread(asked, given.questions):
            drawn, label = choices(one, asked, given.seed)
            rows.append({"prompt": passage_prompt(None, one, language), "choices": drawn, "label": label})
        data = given.out / f"{language}.jsonl"
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        (given.out / f"reading_{language}.yaml").write_text(
            TASK.format(language=language, data=data.resolve()), encoding="utf-8"
        )
        print(f"{language}: {len(rows)} questions, {min(len(row['choices']) for row in rows)} answers or more each")


if __name__ == "__main__":
    main()
