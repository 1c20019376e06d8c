"""Files that others should read have the mode that the umask gives, whoever wrote them: lape, safetensors or transformers."""

from __future__ import annotations

import os
import stat

import pytest

import lape
from lape.ship.export import placed
from lape.ship.hub import write
from support.planted import planted, planted_folder, planted_tokenizer


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def mask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_everything_that_is_written_has_the_mode_of_new_files(tmp_path, mask, monkeypatch):
    monkeypatch.setenv("LAPE_CACHE", str(tmp_path / "cache"))
    here = planted_folder(tmp_path / "made")
    made = {path for path in here.rglob("*") if "model" in path.parts}  # not lape's: transformers'
    neurons = lape.LanguageNeurons.load(here / "run")
    neurons.save(tmp_path / "sets.pth")
    off = lape.Off(neurons["fr"])
    lape.export(planted(), off, tmp_path / "lora", format="lora")
    lape.export(planted(), off, tmp_path / "gguf", format="gguf-lora")
    lape.export(planted(), off, tmp_path / "checkpoint", format="checkpoint", tokenizer=planted_tokenizer())
    placed(tmp_path / "lora", tmp_path / "placed")
    write(here / "run", tmp_path / "hub", repo_id="me/neurons")
    lape.report(here / "run")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path not in made}
    wrong = {
        str(path.relative_to(tmp_path)): oct(mode)
        for path, mode in modes.items()
        if mode != (0o777 if path.is_dir() else 0o666) & ~mask
    }
    assert len(modes) > 20
    assert wrong == {}
    assert os.umask(mask) == mask
