"""The benchmark for a card runs through on tiny models, and what it writes is what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PARTS = {
    "body": {"bare", "published", "recorded"},
    "embedded": {"bare", "published", "recorded", "bare_large", "recorded_large"},
    "steering": {"bare", "steered"},
    "experts": {"bare", "watched", "counted"},
    "memory": set(),
}
FAILING = """
import json, os, sys, time
path, *names = sys.argv[1:]
parts = {}
for name in names:
    parts[name] = {"measured": os.getpid()}
    with open(path + ".new", "w") as file:
        json.dump({"begun": name, "parts": parts, "card": "a card"}, file)
    os.replace(path + ".new", path)
    if name == "hangs":
        time.sleep(600)
    if name == "crashes":
        os._exit(3)
"""

pytestmark = pytest.mark.slow


def run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """What a run of everything wrote and printed, and the file."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    printed = run(BENCHMARKS / "gpu.py", "--tiny", "--out", out)
    return json.loads(out.read_text(encoding="utf-8")), printed, out


def test_every_part_is_there_and_none_failed(tiny):
    result, _, _ = tiny
    assert set(result) == {"card", "torch", "transformers", "python", "date", "tiny", "seconds", "parts"}
    assert result["card"] is None
    assert result["tiny"] is True
    assert 0 < result["seconds"] < 480
    assert {name: set(part.get("ways", {})) for name, part in result["parts"].items()} == PARTS
    assert not [name for name, part in result["parts"].items() if "failed" in part]
    assert not [
        way for part in result["parts"].values() for way, row in part.get("ways", {}).items() if "failed" in row
    ]


def test_ratios_are_those_of_the_tokens_per_second(tiny):
    result, _, _ = tiny
    for name, part in result["parts"].items():
        ways = part.get("ways", {})
        rate = {way: row["tokens_per_second"] for way, row in ways.items()}
        for way, row in ways.items():
            assert row["slowest"] <= rate[way] <= row["fastest"]
            assert row["beside"] == ("bare_large" if way in ("bare_large", "recorded_large") else "bare")
            assert row["to_beside"] == pytest.approx(rate[way] / rate[row["beside"]])
            assert row["rounds"] >= 1
            assert ("to_published" in row) == ("published" in ways)
            if "published" in ways:
                assert row["to_published"] == pytest.approx(rate[way] / rate["published"])
            if name == "body":
                assert row["of_peak"] == pytest.approx(part["flop_per_token"] * rate[way] / part["peak_flops"])
                assert row["of_best"] == pytest.approx(part["flop_per_token"] * rate[way] / part["best_flops"])
            if name == "steering":
                assert row["ms_per_step"] == pytest.approx(1000 / rate[way])
                assert row["tokens"] == part["steps"]
    body, embedded = result["parts"]["body"], result["parts"]["embedded"]
    # 2 layers: query and output 32 × 32, key and value 32 × 16, gate, up and down 32 × 48; two FLOP a weight
    assert body["flop_per_token"] == 2 * 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert {row["tokens"] for row in body["ways"].values()} == {body["rows"][0] * body["rows"][1]}
    assert embedded["ways"]["published"]["tokens"] == embedded["rows"][0] * embedded["rows"][1]
    assert embedded["ways"]["recorded_large"]["tokens"] == embedded["large_rows"][0] * embedded["large_rows"][1]


def test_what_was_timed_had_counted(tiny):
    parts = tiny[0]["parts"]
    for part, plain in (("body", "recorded"), ("embedded", "recorded_large")):
        assert 0.1 < parts[part]["ways"][plain]["firing"] < 0.9


def test_memory_is_not_known_without_a_card(tiny):
    memory = tiny[0]["parts"]["memory"]
    assert (memory["bare"], memory["recording"], memory["ratio"]) == (None, None, None)


def test_the_table_fits_a_terminal_and_holds_the_numbers(tiny):
    result, printed, _ = tiny
    assert max(map(len, printed.splitlines())) <= 80
    for part in result["parts"]:
        assert f"\n{part}: " in printed
    rows = [row for part in result["parts"].values() for row in part.get("ways", {}).values()]
    for row in rows:
        assert f" {row['tokens_per_second']:,.0f}" in printed


def test_the_study_is_added_to_what_there_is(tiny):
    result, _, out = tiny
    printed = run(BENCHMARKS / "gpu.py", "--tiny", "--study", "--out", out)
    after = json.loads(out.read_text(encoding="utf-8"))
    study = after.pop("study")
    assert after == result
    assert "failed" not in study
    seconds = [study[f"{name}_seconds"] for name in ("load", "record", "identify", "perplexity")]
    assert sum(seconds) == pytest.approx(study["seconds"])
    assert study["recorded_tokens"] > 0
    assert "study: " in printed


def test_a_part_that_hangs_or_crashes_says_so_and_the_others_go_on(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    code = f"""
        import json, sys
        sys.path.insert(0, {str(BENCHMARKS)!r})
        import gpu
        limits = {{"first": 1, "hangs": 1, "crashes": 9, "last": 9}}
        print(json.dumps(gpu.supervised([sys.executable, {str(tmp_path / "failing.py")!r}], limits, start=4)))
    """
    began = time.monotonic()
    state = json.loads(run("-c", textwrap.dedent(code)))
    assert time.monotonic() - began < 300
    parts, failed = state["parts"], {name: one.get("failed") for name, one in state["parts"].items()}
    assert state["card"] == "a card"
    assert failed["first"] is None
    assert failed["last"] is None
    assert "too long" in failed["hangs"]
    assert "ended with 3" in failed["crashes"]
    assert parts["first"]["measured"] == parts["hangs"]["measured"] != parts["crashes"]["measured"]
    for name in ("hangs", "last"):
        with pytest.raises(ProcessLookupError):
            os.kill(parts[name]["measured"], 0)
