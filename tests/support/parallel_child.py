"""What the processes of test_parallel.py run: record, two of them together. usage: parallel_child.py FOLDER OUT KIND... [--stop]"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed

import lape
from lape.errors import LapeError

OPTIONS = {
    "row_tokens": 32,
    "batch_tokens": 64,
    "residual": True,
    "histogram": True,
    "per_text": True,
    "document": "line",
}


def main(folder: Path, out: Path, *kinds: str) -> None:
    torch.set_num_threads(1)
    stop, kinds = "--stop" in kinds, tuple(kind for kind in kinds if kind != "--stop")
    texts = {language: str(folder / f"{language}.txt") for language in ("en", "fr")}

    def progress(task: str, done: int, _total: int | None) -> None:
        if stop and task == "recording fr" and done > 100:
            raise KeyboardInterrupt

    for kind in kinds:
        try:
            model, tokenizer = lape.load(folder / kind, tensor_parallel=True)
            stats = lape.record(model, tokenizer, texts, out=out / kind, progress=progress, **OPTIONS)
            stats.save(out / f"{kind}.{distributed.get_rank()}.safetensors")
        except (LapeError, KeyboardInterrupt) as error:
            (out / f"{kind}.{distributed.get_rank()}.txt").write_text(f"{type(error).__name__}: {error}")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
