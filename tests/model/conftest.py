"""What tests of models share."""

from __future__ import annotations

import pytest
import torch

from support.brute import lively, tokenizer_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a model and its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    lively("llama", torch.float32).save_pretrained(folder)
    tokenizer_of().save_pretrained(folder)
    return folder
