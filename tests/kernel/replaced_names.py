"""C text in which names stand for what differs between a wrong program and a right one."""


def replaced(code, names):
    """Returns `code` with a text in place of each name."""
    for name, text in names.items():
        code = code.replace(name, text)
    return code
