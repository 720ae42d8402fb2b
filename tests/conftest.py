"""What all tests share."""

import pytest
from hypothesis import settings

pytest_plugins = ["pytester", "map_usage", "allowed_skips"]

# A machine may be slow or busy: no example has a deadline.
settings.register_profile("bpfmaps", deadline=None)
settings.load_profile("bpfmaps")


@pytest.fixture(scope="session")
def mypy_cache(tmp_path_factory):
    """A folder where the tests that run mypy on a user's file keep what it knows of this package."""
    return tmp_path_factory.mktemp("mypy")


@pytest.fixture
def pytester(pytester, monkeypatch):
    """pytest's fixture. The runs that it starts leave out hypothesis, whose import takes most of their time.

    Its plugin imports it at the end of each run, whether a test uses it or not.
    """
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")
    return pytester


@pytest.fixture(autouse=True)
def _no_worker_of_ours(request, monkeypatch):
    """Has the pytest that a test starts be a run of its own, also from a worker of pytest-xdist."""
    if "pytester" in request.fixturenames:
        for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
            monkeypatch.delenv(name, raising=False)
