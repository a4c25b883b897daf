"""Bonito: ask questions of a company's own documents, with any model, on any cloud."""

from __future__ import annotations

__version__ = "0.1.0"
