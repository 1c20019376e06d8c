"""Options of loading a model, reading texts and recording activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from lape.errors import OptionError
from lape.options.base import check_choices, converted, positive
from lape.store.shards import Shard


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded."""

    dtype: str = "auto"
    """Number format of the weights: auto (as stored), bfloat16, float16 or float32."""
    device: str | None = None
    """Where it runs: cpu, cuda, cuda:1, mps. Default: a GPU if there is one."""
    device_map: str | None = None
    """Spread the model over several devices, for instance auto (needs the extra `accelerate`)."""
    tensor_parallel: Annotated[bool, Parameter(negative="")] = False
    """Share out every layer among the processes of torchrun."""
    bits: int | None = None
    """Quantise the weights to 8 or 4 bits as they are loaded (needs bitsandbytes and accelerate)."""
    revision: str | None = None
    """Revision of a model on the Hub."""
    sites: Annotated[tuple[str, ...] | None, Parameter(negative="", consume_multiple=True)] = None
    """Name the neurons by hand: activation modules and down projections, * for the layer number."""

    def __post_init__(self) -> None:
        if self.bits not in (None, 4, 8):
            raise OptionError(f"bits is {self.bits}. Expected 8 or 4, or none to load the weights as they are stored.")


@dataclass(frozen=True)
class TextOptions:
    """How texts become rows of tokens."""

    tokens: Annotated[int | None, Parameter(converter=converted)] = None
    """At most this many tokens of each language. Default: all."""
    document: Literal["file", "line"] = "file"
    """What a document is in a .txt file: the whole file, or each line."""
    column: str = "text"
    """The column of a .jsonl, .parquet or Hub data set that holds the text."""
    bos: Literal["auto", "always", "never"] = "auto"
    """Begin rows with BOS: where the tokenizer adds one, always, or never (the published rule). BOS is never counted."""
    row_tokens: int = 512
    """Tokens in a row, BOS included; a longer document is cut."""
    batch_tokens: int = 2048
    """Tokens that run at once."""
    one_per_row: bool = False
    """One document a row even where the model could keep several apart."""

    def __post_init__(self) -> None:
        check_choices(self)
        positive(self, "tokens", "batch_tokens")
        if self.row_tokens < 8:
            raise OptionError(f"row_tokens is {self.row_tokens}. Expected at least 8.")


@dataclass(frozen=True)
class RecordOptions(TextOptions):
    """How activations are recorded."""

    residual: bool = False
    """Record also the sums of the residual stream after every layer."""
    attribution: Annotated[int | None, Parameter(converter=converted)] = None
    """Record also what the loss owes each neuron, by a backward pass over this many tokens of each language."""
    per_text: bool = False
    """Record also the mean activations of single texts, which the method ap reads: documents, or chunks where there are under 64."""
    most_texts: int = 200
    """At most so many texts of each language, evenly spread, have their means kept."""
    histogram: bool = False
    """Record also a histogram of every neuron's activations, which the method probability90 reads."""
    also: str | None = None
    """Record also these, by name, with commas between: quantities that have no option of their own."""
    until: float | None = None
    """Stop all languages together once the sets of each come out of halves of the text with this median Jaccard, such as 0.85."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Count inside the graph that torch.compile makes: where there is so much text that it pays, on, or off."""
    shard: str | None = None
    """Record only a part of the batches of every language, such as 3/16, the third of sixteen; lape merge adds them up."""
    checkpoint_seconds: float = 60.0
    """Save the state of a run this often, so that a killed one can go on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "attribution", "most_texts")
        if self.until is not None and not 0 < self.until <= 1:
            raise OptionError(f"until is {self.until}. Expected a Jaccard above 0 and up to 1, such as 0.85.")
        if self.shard is not None and self.until is not None:
            raise OptionError(
                "until looks at all languages and all their text at once, a shard at a part. Give one of them."
            )
        if self.shard is not None:
            Shard.parse(self.shard)
