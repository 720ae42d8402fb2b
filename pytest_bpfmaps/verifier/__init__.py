"""What the kernel's verifier says, and what it means for the C source."""

from __future__ import annotations

from .advice import Advice, advise
from .closer import advise_closer
from .log import Rejection, parse_log

__all__ = ["Advice", "Rejection", "advise", "advise_closer", "parse_log"]
