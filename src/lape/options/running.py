"""Options of who runs the batches of a recording, and of planning it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from lape.errors import OptionError
from lape.options.base import check_choices, converted, positive


@dataclass(frozen=True)
class ClusterOptions:
    """Who runs the batches of a recording."""

    engine: Literal["local", "ray"] = "local"
    """This process, or workers of Ray, each with a model of its own (needs the extra `ray`)."""
    workers: int = 2
    """Of ray: how many workers."""
    address: str | None = None
    """Of ray: the cluster, such as auto or ray://head:10001. Default: this machine, started for the run."""
    worker_cpus: float | None = None
    """Of ray: CPU cores a worker has. Default: this machine's or the cluster's, shared out."""
    worker_gpus: float | None = None
    """Of ray: GPUs a worker has. Default: one where there are any."""
    group_batches: int = 64
    """Of ray: batches that are counted in one go, and again where a worker is lost."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "workers", "group_batches")
        for name in ("worker_cpus", "worker_gpus"):
            if (getattr(self, name) or 0) < 0:
                raise OptionError(f"{name} is {getattr(self, name)}. Expected a number such as 1, or 0.5 to share one.")

    def needs(self, resources: dict[str, float]) -> dict[str, float]:
        """What a worker asks for, of a cluster that has `resources` (as Ray names them)."""
        shared = max(resources.get("CPU", 1) / self.workers, 0.01)
        cpus = self.worker_cpus if self.worker_cpus is not None else shared if shared < 1 else float(int(shared))
        gpus = self.worker_gpus if self.worker_gpus is not None else float(resources.get("GPU", 0) >= 1)
        return {"num_cpus": cpus, "num_gpus": gpus}


@dataclass(frozen=True)
class PlanOptions:
    """What is planned, and for which machine."""

    languages: int = 7
    """How many languages."""
    tokens: Annotated[int, Parameter(converter=converted)] = 1_000_000
    """Tokens recorded of each language."""
    evaluate: Annotated[int, Parameter(converter=converted)] = 10_000
    """Tokens of each language on which perplexity is measured."""
    draws: int = 3
    """Draws of each control."""
    batch_tokens: int = 2048
    """Tokens that run at once."""
    gpus: int = 0
    """GPUs that work at once. Default: the device that lape would use here."""
    gpu_memory: float = 80.0
    """GiB of one of them."""
    tflops: float | None = None
    """What one of them does, in 10¹² FLOP a second in the model's number format, where it is not measured here."""
    share: float = 0.5
    """Of `tflops`: the share of it that recording reaches."""

    def __post_init__(self) -> None:
        positive(self, "languages", "tokens", "evaluate", "draws", "batch_tokens")
        if self.gpus < 0 or self.gpu_memory <= 0 or (self.tflops is not None and self.tflops <= 0):
            raise OptionError("gpus, gpu_memory and tflops must be above 0, such as 8, 80 and 989.")
        if not 0 < self.share <= 1:
            raise OptionError(f"share is {self.share}. Expected a share above 0 and up to 1, such as 0.5.")
