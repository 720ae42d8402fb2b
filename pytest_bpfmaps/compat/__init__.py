"""Private names of Python, pytest, pytest-xdist, execnet, other plugins and libraries, each in one place.

`tests/unit/test_compat.py` has a test for each. It says which name a new release has taken away.
"""
