"""What all tests share."""

from hypothesis import settings

pytest_plugins = ["pytester", "map_usage", "allowed_skips"]

# A machine may be slow or busy: no example has a deadline.
settings.register_profile("bpfmaps", deadline=None)
settings.load_profile("bpfmaps")
