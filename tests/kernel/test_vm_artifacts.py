"""Tests that a file which an agent wrote in a guest comes to the host."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("cache_of_this_run")


def test_a_file_of_an_agent(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_it(bpf, tmp_path, record_property):
            agent = bpf.start(["sh", "-c", "seq 1000000 > numbers; uname -r > release"], cwd=tmp_path)
            assert agent.wait(60) == 0
            record_property("numbers", agent.artifact("numbers"))
            record_property("release", agent.artifact("release", name="its-release"))
            with pytest.raises(RuntimeError, match="File exists"):
                agent.artifact("numbers")
            print("fetched")
        """
    )
    base = pytester.path / "base"
    result = pytester.runpytest_subprocess(
        "--bpf-kernel=6.1", "--bpf-vm-timeout=120", f"--basetemp={base}", "-rP"
    )
    result.assert_outcomes(passed=1)
    (numbers,) = base.rglob("numbers")
    assert numbers.read_text().split() == [str(n) for n in range(1, 1_000_001)]  # in two pieces
    (release,) = base.rglob("its-release")
    assert release.read_text().startswith("6.1.")
    assert numbers.parent == release.parent
    assert numbers.parent.parent == base / "popen-6.1"
    assert Path(release).stat().st_mode & 0o777 == 0o600
