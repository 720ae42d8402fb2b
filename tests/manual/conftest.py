"""Gives the tests of a page the page's C files."""

import pytest
from manual_pages import HOWTO, write_sources


@pytest.fixture
def bpf(bpf, request, tmp_path):
    if "PAGE" in vars(request.module):
        write_sources(HOWTO / request.module.PAGE, tmp_path)
        bpf._folders.insert(0, tmp_path)
    return bpf
