"""The private name of watchfiles that is used.

When its constructor returns, the folders are being watched. The public functions do not tell when they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def start_watching(folders: Sequence[str]) -> Any:
    """Returns a watcher of folders and all that is below them.

    Its `watch(most_ms, step_ms, timeout_ms, None)` returns a set of (kind, path), or a text. Raises OSError
    or RuntimeError when the kernel can't watch them.
    """
    from watchfiles._rust_notify import RustNotify

    return RustNotify(list(folders), False, False, 0, True, True)
