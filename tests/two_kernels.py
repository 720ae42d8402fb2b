"""A conftest.py whose tests with the argument `kernel` report what a run on kernels 5.10 and 6.1 reports."""

CONFTEST = """
    import pytest

    def pytest_generate_tests(metafunc):
        if "kernel" in metafunc.fixturenames:
            metafunc.parametrize("kernel", ["5.10", "6.1"])

    def pytest_collection_modifyitems(items):
        for item in items:
            if hasattr(item, "callspec"):
                item.user_properties.append(("bpf_kernel", item.callspec.params["kernel"]))
"""
