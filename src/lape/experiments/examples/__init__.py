"""What single neurons do: the text they fire on, the tokens they write, and what switching one off costs."""

from lape.experiments.examples.run import Examples, examples

__all__ = ["Examples", "examples"]
