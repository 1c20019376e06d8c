"""Reports: tables as one self-contained HTML file."""

from lape.reporting.page import report

__all__ = ["report"]
