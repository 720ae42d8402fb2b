"""Tests ``__kconfig`` variables: they have the configured values, and weak ones may be zero."""

import pytest

from pytest_bpfmaps import LoadError, MapError, MapTypeError, NameLookupError
from pytest_bpfmaps.kernel.features import kernel_config

pytestmark = pytest.mark.bpf_requires(config="BPF_SYSCALL")

PROGRAM = 'SEC("xdp") int value(struct xdp_md *ctx) { return EXPRESSION; }'


def value(load_code, declaration, expression):
    code = f"#include <stdbool.h>\nextern {declaration} __kconfig __weak;\n"
    obj = load_code(code + PROGRAM.replace("EXPRESSION", expression))
    return obj.programs.value.run(bytes(64)).retval


@pytest.mark.parametrize(
    ("declaration", "expression"),
    [
        ("bool CONFIG_NO_SUCH_OPTION", "CONFIG_NO_SUCH_OPTION"),
        ("int CONFIG_NO_SUCH_NUMBER", "CONFIG_NO_SUCH_NUMBER"),
        ("char CONFIG_NO_SUCH_LETTER", "CONFIG_NO_SUCH_LETTER"),
        ("enum libbpf_tristate CONFIG_NO_SUCH_CHOICE", "CONFIG_NO_SUCH_CHOICE"),
        ("char CONFIG_NO_SUCH_TEXT[8]", "CONFIG_NO_SUCH_TEXT[0]"),
    ],
)
def test_a_weak_one_that_is_not_set_is_zero(load_code, declaration, expression):
    assert value(load_code, declaration, expression) == 0
    assert value(load_code, "bool CONFIG_BPF_SYSCALL", "CONFIG_BPF_SYSCALL") == 1


def test_set_and_not_set_in_one_object(load_code):
    code = "#include <stdbool.h>\nextern bool CONFIG_BPF_SYSCALL __kconfig;\n"
    code += "extern bool CONFIG_NO_SUCH_OPTION __kconfig __weak;\n"
    code += "extern int LINUX_KERNEL_VERSION __kconfig;\n"
    expression = "CONFIG_BPF_SYSCALL + 2 * CONFIG_NO_SUCH_OPTION + (LINUX_KERNEL_VERSION ? 4 : 0)"
    obj = load_code(code + PROGRAM.replace("EXPRESSION", expression))
    assert obj.programs.value.run(bytes(64)).retval == 5


def test_numbers_and_choices_are_the_configurations(load_code):
    settings = kernel_config()
    assert value(load_code, "int CONFIG_HZ", "CONFIG_HZ") == int(settings["HZ"])
    for option in ("KASAN", "SECURITY", "BTRFS_FS", "SMP"):
        expected = {"y": 1, "m": 2}.get(settings.get(option), 0)  # enum libbpf_tristate
        name = f"CONFIG_{option}"
        assert value(load_code, f"enum libbpf_tristate {name}", name) == expected, option


def test_one_that_must_be_set_is_named(load_code):
    code = "extern _Bool CONFIG_NO_SUCH_OPTION __kconfig;\n"
    with pytest.raises(LoadError, match=r"needs CONFIG_NO_SUCH_OPTION, and this kernel's configuration"):
        load_code(code + PROGRAM.replace("EXPRESSION", "CONFIG_NO_SUCH_OPTION"))


SETTABLE = """
extern int CONFIG_HZ __kconfig;
extern _Bool CONFIG_BPF_SYSCALL __kconfig;
extern enum libbpf_tristate CONFIG_NO_SUCH_CHOICE __kconfig __weak;
extern char CONFIG_NO_SUCH_TEXT[8] __kconfig __weak;
extern int LINUX_KERNEL_VERSION __kconfig;
int hz, letter, choice, bpf = -1;
SEC("xdp") int look(struct xdp_md *ctx)
{
    hz = CONFIG_HZ;
    bpf = CONFIG_BPF_SYSCALL;
    choice = CONFIG_NO_SUCH_CHOICE;
    letter = CONFIG_NO_SUCH_TEXT[1];
    return LINUX_KERNEL_VERSION ? XDP_PASS : XDP_DROP;
}
"""


def test_options_in_place_of_the_kernels(load_code):
    options = {"CONFIG_HZ": 1234, "CONFIG_NO_SUCH_CHOICE": "m", "CONFIG_NO_SUCH_TEXT": "abc"}
    obj = load_code(SETTABLE, kconfig=options)
    obj.programs.look.run(bytes(64))
    assert obj.globals >= {"hz": 1234, "bpf": 1, "choice": 2, "letter": ord("b")}
    assert obj.globals >= {
        "CONFIG_HZ": 1234,
        "CONFIG_NO_SUCH_CHOICE": "TRI_MODULE",
        "CONFIG_NO_SUCH_TEXT": "abc",
    }
    obj = load_code(SETTABLE, kconfig={"CONFIG_BPF_SYSCALL": False})
    obj.programs.look.run(bytes(64))
    assert obj.globals >= {"hz": int(kernel_config()["HZ"]), "bpf": 0, "choice": 0, "letter": 0}


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"kconfig": {"CONFIG_H": 1}}, NameLookupError, "did you mean 'CONFIG_HZ'"),
        ({"kconfig": {"CONFIG_HZ": 2.5}}, MapTypeError, "cannot set CONFIG_HZ to 2.5"),
        ({"kconfig": {"CONFIG_HZ": "y"}}, LoadError, "CONFIG_HZ"),
        ({"kconfig": {"LINUX_KERNEL_VERSION": 5}}, LoadError, "finds its value out itself"),
        ({"globals": {"CONFIG_HZ": 5}}, MapError, "bpf.load(…, kconfig={'CONFIG_HZ': 5})"),
    ],
)
def test_options_that_have_no_effect_are_refused(load_code, options, error, said):
    with pytest.raises(error) as refused:
        load_code(SETTABLE, **options)
    assert said in str(refused.value)
