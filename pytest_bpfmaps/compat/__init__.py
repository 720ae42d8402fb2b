"""Names of pytest, pytest-xdist, execnet and other plugins that are not public, each in one place.

`tests/unit/test_compat.py` has a test for each, which says what a new release took away.
"""
