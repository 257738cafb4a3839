"""Code hashes: what the code of a script means, wherever it lies and however it is imported.

The hash of a module covers its syntax tree without docstrings, so comments and formatting change nothing, and in it a
name imported from this library stands for the hash of the module that defines it (a Merkle tree). The places and names
of modules are no part of it: moving or renaming a module moves no hash, and an edit moves the hash of every module that
uses the edited one.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from outlier_features.shipped import PACKAGE

WITHOUT_EFFECT = {
    "artefacts.code_hash",
    "artefacts.digests",
    "artefacts.lineage",
    "artefacts.paths",
    "artefacts.remedies",
    "capture.progress",
    "config.config",
    "config.entries",
    "config.mistakes",
    "config.suggestions",
    "config.yaml_places",
    "errors",
    "kernels.compiling",
    "machine.disk",
    "machine.gpu_lock",
    "machine.logs",
    "models.failures",
    "models.footprint",
    "models.sizes",
    "pipeline.history",
    "planning.estimate",
    "shipped",
    "sources.admission",
    "sources.hub",
    "sources.retry",
    "statistics.timings",
}
"""Modules and folders of modules, by dotted name, from which no number follows: the configuration enters by value, what
the hub sends is checked by its digest, plans are estimates, what is refused has no numbers, the others carry words and
paths."""

_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | _Comprehension
_Import = ast.Import | ast.ImportFrom


@cache
def of_script(script: Path) -> str:
    """Return the hash of a script. Raises graphlib.CycleError, which names them, if modules import one another."""
    TopologicalSorter({path: _imported(path) for path in sources(script)}).prepare()
    return _hash(script)


def sources(script: Path) -> list[Path]:
    """Return a script and every module of this library that it imports and that has an effect on results, sorted."""
    found: set[Path] = set()
    queue = [script]
    while queue:
        path = queue.pop()
        if path not in found:
            found.add(path)
            queue.extend(_imported(path))
    return sorted(found)


@cache
def _hash(path: Path) -> str:
    meaning = _Meaning(_tokens(path))
    code = ast.unparse(meaning.visit(_tree(path)))
    unused = sorted(token for name, token in meaning.tokens.items() if name not in meaning.used)  # run all the same
    return hashlib.sha256("\n".join([*unused, code]).encode()).hexdigest()


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    """Return the modules of this library that a module imports, anywhere in it, as far as they affect results."""
    targets = (_target(name)[0] for _, name in _bindings(path))
    return tuple(target for target in targets if target is not None)


@cache
def _tokens(path: Path) -> dict[str, str]:
    """Return what each name stands for that a module imports from this library; several, if functions differ in it."""
    found: dict[str, set[str]] = {}
    for bound, name in _bindings(path):
        found.setdefault(bound, set()).add(_token(name))
    return {bound: "_or_".join(sorted(tokens)) for bound, tokens in found.items()}


def _token(name: str) -> str:
    """Return what a dotted name of this library stands for: the hash of a module, with what is taken from it."""
    module, attribute = _target(name)
    if module is None:
        return attribute
    if not attribute:
        return f"_{_hash(module)}"
    passed_on = dict(_bindings(module, at_top=True)).get(attribute)
    if passed_on and attribute not in _defined(module):
        return _token(passed_on)
    return f"_{_hash(module)}.{attribute}"


def _target(name: str) -> tuple[Path | None, str]:
    """Return the module that a dotted name of this library leads to, None without effect, and what is taken from it.

    Raises ImportError if it leads to a folder, whose `__init__` holds no code.
    """
    parts = name.split(".")[1:]
    for depth in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:depth]).with_suffix(".py")
        if path.is_file() or path.with_suffix("").is_dir():
            attribute = ".".join(parts[depth:])
            if _is_without_effect(parts[:depth]):
                return None, attribute
            if path.is_file():
                return path, attribute
            raise ImportError(f"{name} is taken from the folder {path.with_suffix('')}; import it from its module.")
    return None, ".".join(parts)  # of the package itself, which holds its version only


def _is_without_effect(parts: list[str]) -> bool:
    return any(".".join(parts[:depth]) in WITHOUT_EFFECT for depth in range(1, len(parts) + 1))


@cache
def _bindings(path: Path, *, at_top: bool = False) -> tuple[tuple[str, str], ...]:
    """Return what a module imports from this library: the names it binds, with the dotted names they stand for."""
    tree = _tree(path)
    nodes = (node for node in (tree.body if at_top else ast.walk(tree)) if isinstance(node, _Import))
    return tuple(binding for node in nodes for binding in _bound(node) if _is_ours(binding[1]))


@cache
def _defined(path: Path) -> set[str]:
    """Return the names that a module assigns or defines, anywhere in it."""
    nodes = [*ast.walk(_tree(path))]
    named = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    return named | _stored(nodes)


def _bound(node: _Import) -> Iterator[tuple[str, str]]:
    """Yield the names that an import binds, with what they stand for. Raises ImportError if it is a relative one."""
    if isinstance(node, ast.ImportFrom) and node.level:
        raise ImportError(f"{ast.unparse(node)}: is relative to a place; write where from, from {PACKAGE.name} on.")
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names:
        yield alias.asname or alias.name, f"{prefix}{alias.name}"


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == PACKAGE.name


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


class _Meaning(ast.NodeTransformer):
    """Removes docstrings and imports from this library, and puts what each imported name stands for in its place."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self.tokens, self.used = tokens, set[str]()
        self._local = frozenset[str]()

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Name | ast.Attribute):
            return self._name(node)
        if isinstance(node, _Import):
            return self._import(node)
        outside = self._local
        if isinstance(node, _Scope):
            self._local |= _bound_inside(node)
        self.generic_visit(node)
        self._local = outside
        statements = getattr(node, "body", None)
        if isinstance(statements, list):
            statements[:] = [statement for statement in statements if not _is_docstring(statement)] or [ast.Pass()]
        return node

    def _name(self, node: ast.Name | ast.Attribute) -> ast.AST:
        name = ast.unparse(node) if isinstance(node.ctx, ast.Load) else ""
        if name in self.tokens and name.partition(".")[0] not in self._local:
            self.used.add(name)
            return ast.Name(self.tokens[name], node.ctx)
        return self.generic_visit(node)

    def _import(self, node: _Import) -> ast.AST | None:
        other = [alias for alias, (_, name) in zip(node.names, _bound(node), strict=True) if not _is_ours(name)]
        node.names = other
        return node if other else None


def _bound_inside(scope: ast.AST) -> set[str]:
    """Return the names that a function or comprehension binds, which hide imported ones of the same name."""
    nodes = [*ast.walk(scope)]
    return {node.arg for node in nodes if isinstance(node, ast.arg)} | _stored(nodes)


def _stored(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
