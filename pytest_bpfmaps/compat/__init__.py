"""The private names of pytest, pytest-xdist, execnet and other plugins that are used, each in one place.

`tests/unit/test_compat.py` has a test for each. It says which name a new release has taken away.
"""
