"""How long a wait was, in messages."""

import pytest

from pytest_bpfmaps.kernel import release
from pytest_bpfmaps.kernel.release import shown_timeout


@pytest.mark.parametrize(
    ("emulated", "seconds", "text"),
    [
        (False, 10.0, "10 s"),
        (False, 0.01, "0.01 s"),
        (True, 10.0, "10 s (as the CPU is emulated, 100 s)"),
        (True, 0.25, "0.25 s (as the CPU is emulated, 2.5 s)"),
        (True, 0, "0 s"),
    ],
)
def test_it_says_both_where_limits_are_longer(
    monkeypatch: pytest.MonkeyPatch, emulated: bool, seconds: float, text: str
) -> None:
    monkeypatch.setattr(release, "is_emulated", lambda: emulated)
    assert shown_timeout(seconds) == text
