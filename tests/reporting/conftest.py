"""Runs that reports are made of."""

from support.reports import run, texts, whole

__all__ = ["run", "texts", "whole"]
