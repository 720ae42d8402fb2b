"""Finds the places of a module that can be changed, and what each is changed to.

The operators are those of cosmic-ray. One mutant is drawn for each place: there are up to eleven for an
operator like ``+``, and the same test kills all.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator

# ``==`` and ``is`` are the same for what is compared here: None, members of an enum, small numbers.
SAME = ("Eq_Is", "Is_Eq", "NotEq_IsNot", "IsNot_NotEq")


@dataclass(frozen=True)
class Mutant:
    """One change: the occurrence of an operator in a file."""

    path: str
    operator: str
    occurrence: int
    line: int
    column: int
    on_import: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column} {self.operator}#{self.occurrence}"


class RemoveStatement(Operator):
    """Removes a statement that is there for its effect. cosmic-ray has none of the kind."""

    KINDS = ("atom_expr", "del_stmt", "raise_stmt")
    TARGETS = ("atom_expr", "power")

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Gives calls whose value nobody takes, ``del``, ``raise``, ``x += 1``, ``x.y = z``, ``x[y] = z``."""
        if node.type == "simple_stmt" and self._has_effect(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def _has_effect(self, statement: Any) -> bool:
        if statement.type != "expr_stmt":
            return statement.type in self.KINDS
        target, assigns = statement.children[:2]
        return target.type in self.TARGETS or (assigns.type == "operator" and assigns.value != "=")

    def mutate(self, node: Any, index: int) -> Any:
        """Puts ``pass`` in place of the statement, or ``super``, so that the function keeps its closure."""
        indent = node.children[0].get_first_leaf().prefix
        instead = "super" if "super()" in node.children[0].get_code() else "pass"
        node.children[0] = parso.parse(instead).children[0]
        node.children[0].prefix = indent
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        """Returns none: the operator is not handed out."""
        return ()


@cache
def operators() -> dict[str, Operator]:
    """Returns the operators by name, without those that need arguments."""
    found: dict[str, Operator] = {"RemoveStatement": RemoveStatement()}
    for name in cosmic_ray.plugins.operator_names():
        kind = cosmic_ray.plugins.get_operator(name)
        if not kind.arguments() and not name.endswith(SAME):
            found[name.removeprefix("core/")] = kind()
    return found


def draw(path: Path, seed: int) -> list[Mutant]:
    """Returns one mutant for each place of a file, drawn by chance."""
    source = path.read_text()
    nodes = list(ast_nodes(get_ast(source)))
    tree = ast.parse(source)
    passed_over, bodies = list(_without_effect(tree)), list(_bodies(tree))
    places: dict[tuple[Any, ...], list[Mutant]] = {}
    for name, operator in operators().items():
        positions = (position for node in nodes for position in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(positions):
            if not any(first <= start < last for first, last in passed_over):
                on_import = not any(first <= start < last for first, last in bodies)
                place = (start, end, name.split("_")[0])
                places.setdefault(place, []).append(Mutant(str(path), name, occurrence, *start, on_import))
    dice = random.Random(f"{seed} {path}")
    return [dice.choice(variants) for _, variants in sorted(places.items())]


def _bodies(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield (node.body[0].lineno, 0), (node.end_lineno or 0, node.end_col_offset or 0)


def _without_effect(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Gives the places of annotations and of imports for types: nothing runs them."""
    for node in ast.walk(tree):
        skipped: list[ast.AST | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            skipped = [node.annotation]
        elif isinstance(node, ast.FunctionDef):
            skipped = [node.returns]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped = [node]
        for part in filter(None, skipped):
            yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def mutated(mutant: Mutant) -> str:
    """Returns the text of the file with the change."""
    return str(mutate_code(Path(mutant.path).read_text(), operators()[mutant.operator], mutant.occurrence))
