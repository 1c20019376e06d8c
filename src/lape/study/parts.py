"""The parts of a study, in the order in which they are run."""

from __future__ import annotations

from lape.study import behaviour, critics, paper
from lape.study.part import Part

PARTS: tuple[Part, ...] = (
    Part("layers", "where the neurons lie", paper.layers_part, ("layers", "histogram"), quick=True),
    Part(
        "perplexity",
        "LAPE's sets off, with controls (a) and (b)",
        paper.perplexity_part,
        ("perplexity", "controlled", "published"),
        paper.perplexity_cost,
        quick=True,
    ),
    Part(
        "frontier",
        "ways of choosing at equal numbers of neurons",
        paper.frontier_part,
        ("frontier", "matrix", "advantages"),
        paper.frontier_cost,
        quick=True,
    ),
    Part("sweep", "number of neurons against effect", paper.sweep_part, ("sweep", "growth"), paper.sweep_cost),
    Part(
        "similarity",
        "sentence similarity and dominance across layers",
        paper.similarity_part,
        ("dominance", "pairs"),
        paper.similarity_cost,
    ),
    Part("amount", "how much text the sets need", paper.amount_part, ("amount", "reliability"), quick=True),
    Part("domain", "whether sets follow the kind of text", paper.domain_part, ("domain",), paper.domain_cost),
    Part("languages", "how sets move with the languages compared", paper.languages_part, ("dropped",), quick=True),
    Part("resource", "effect against bits per sentence (descriptive)", paper.resource_part, ("resource",), quick=True),
    Part(
        "null",
        "entropies of slices of one language",
        critics.null_part,
        ("null",),
        quick=True,
        missing=critics.null_missing,
    ),
    Part("overlap", "which languages share neurons, and why", paper.overlap_part, ("overlap", "mantel"), quick=True),
    Part(
        "patching",
        "zeroing or mean-patching",
        critics.patching_part,
        ("patching", "patched_matrix"),
        critics.patching_cost,
        missing=critics.sums_missing,
    ),
    Part(
        "necessity",
        "frequency or necessity: single neurons off",
        critics.necessity_part,
        ("ablated", "correlations", "predictions"),
        critics.necessity_cost,
        missing=critics.sums_missing,
    ),
    Part(
        "scripts",
        "script or language",
        critics.scripts_part,
        ("scripts",),
        critics.scripts_cost,
        missing=critics.scripts_missing,
    ),
    Part(
        "generation",
        "answers with neurons off (good answers: a proxy)",
        behaviour.generation_part,
        ("generation", "drops", "answers"),
        behaviour.generation_cost,
        missing=behaviour.generation_missing,
    ),
    Part(
        "steering",
        "language forcing, measured before",
        behaviour.forcing_part,
        ("forcing", "forcing_differences"),
        missing=behaviour.forcing_missing,
    ),
    Part(
        "answering",
        "questions about passages, off and steered",
        behaviour.answering_part,
        ("answering",),
        behaviour.answering_cost,
        missing=behaviour.answering_missing,
    ),
)
