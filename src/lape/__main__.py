"""`python -m lape` is `lape`, where scripts are not on the path."""

from __future__ import annotations

from lape.cli import main

if __name__ == "__main__":
    main()
