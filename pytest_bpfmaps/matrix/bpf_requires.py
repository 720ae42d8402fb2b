"""The markers `bpf_requires` and `bpf_fresh_kernel`: they skip a test where the kernel lacks a feature."""

from __future__ import annotations

from functools import cache

import pytest

from pytest_bpfmaps.compiler.clang_features import lacking_ability
from pytest_bpfmaps.kernel.feature_releases import should_have, since
from pytest_bpfmaps.kernel.release import release, version
from pytest_bpfmaps.kernel.running_kernel import missing_features
from pytest_bpfmaps.matrix.compilers import clang_of, compiler_for, in_guest
from pytest_bpfmaps.matrix.items import MISSING_PROPERTY, is_strict


def check_markers(item: pytest.Item) -> None:
    """Skips a test marked `bpf_requires` where a probe says that the kernel, or clang, lacks the feature.

    Skips a test marked `bpf_fresh_kernel` on the running kernel: nobody can start that one for a test.
    """
    if item.get_closest_marker("bpf_fresh_kernel") and not in_guest():
        skip_for_want(item, "a fresh kernel", "needs a fresh kernel: run it in a guest, by --bpf-kernel=6.1")
    for mark in item.iter_markers("bpf_requires"):
        if not mark.args and not mark.kwargs:
            pytest.fail(
                'bpf_requires() names no feature: write bpf_requires("xdp", "ringbuf"), or remove it',
                pytrace=False,
            )
        features = dict(mark.kwargs)
        wanted = features.pop("clang", ())
        for feature, sentence in missing_features(mark.args, features):
            skip_for_want(item, feature, sentence)
        for expression in [wanted] if isinstance(wanted, str) else wanted:
            if clang := _lacking_clang(clang_of(item.config), expression):
                fix = "install a newer one, such as clang-19, or name it with --bpf-clang"
                skip_for_want(item, f"clang with {expression}", f"{clang} lacks {expression}; {fix}")


def skip_for_want(item: pytest.Item, feature: str, sentence: str) -> None:
    """Skips a test because a feature is missing.

    With ``--bpf-strict`` the test fails if Linux of this release has the feature.
    """
    item.user_properties.append((MISSING_PROPERTY, feature))
    if is_strict(item.config) and should_have(feature, version()):
        pytest.fail(
            f"{sentence}\n  -> Linux has it since {since(feature)}, so {release()} is configured "
            "without it, locked down or sandboxed: change that, or run without --bpf-strict",
            pytrace=False,
        )
    pytest.skip(sentence)


@cache
def _lacking_clang(clang: str | None, expression: str) -> str | None:
    return lacking_ability(compiler_for(clang), expression)
