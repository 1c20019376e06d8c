"""What a command said on stderr, without the lines by which it tells where it is."""

from __future__ import annotations

import re

_STEP = re.compile(r"^(.* …|.*: \d+ (s|min) so far|From .*: .*)\n", re.MULTILINE)


def without_steps(said: str) -> str:
    """Errors and warnings alone."""
    return _STEP.sub("", said)
