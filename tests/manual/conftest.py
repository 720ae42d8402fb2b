"""Gives the tests of a page the page's C files."""

import pytest
from manual_pages import HOWTO, write_sources


@pytest.fixture
def bpf(bpf, request, tmp_path):
    page = getattr(request.cls or request.module, "PAGE", None)
    if page is not None:
        write_sources(HOWTO / page, tmp_path)
        bpf._folders.insert(0, tmp_path)
    return bpf
