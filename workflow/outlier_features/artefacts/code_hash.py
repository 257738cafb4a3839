"""Code hashes: what the code of a script means, wherever it lies and however it is imported.

The hash of a module covers its syntax tree without docstrings, so comments and formatting change nothing, and in it a
name imported from this library stands for the hash of the module that defines it (a Merkle tree). The places and names
of modules are no part of it: moving or renaming a module moves no hash, and an edit moves the hash of every module that
uses the edited one.
"""

import ast
import hashlib
from collections.abc import Iterator
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

_Import = ast.Import | ast.ImportFrom
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


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
    tree = _tree(path)
    meaning = _Meaning(tree)
    code = ast.unparse(meaning.visit(tree))
    unused = sorted({_token(name) for _, name in _bindings(path)} - meaning.used)  # run all the same
    return hashlib.sha256("\n".join([*unused, code]).encode()).hexdigest()


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    """Return the modules of this library that a module imports, anywhere in it, as far as they affect results."""
    targets = (_target(name)[0] for _, name in _bindings(path))
    return tuple(target for target in targets if target is not None)


def _token(name: str) -> str:
    """Return what a dotted name of this library stands for: the hash of a module, with what is taken from it."""
    module, attribute = _target(name)
    if module is None:
        return attribute
    if not attribute:
        return f"_{_hash(module)}"
    passed_on = _passed_on(module).get(attribute)
    return _token(passed_on) if passed_on else f"_{_hash(module)}.{attribute}"


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
def _bindings(path: Path) -> tuple[tuple[str, str], ...]:
    """Return what a module imports from this library: the names it binds, with the dotted names they stand for."""
    nodes = (node for node in ast.walk(_tree(path)) if isinstance(node, _Import))
    return tuple(binding for node in nodes for binding in _bound(node) if _is_ours(binding[1]))


@cache
def _passed_on(path: Path) -> dict[str, str]:
    """Return the names that a module takes from elsewhere in this library and has no other meaning for."""
    tree = _tree(path)
    at_top = [binding for node in tree.body if isinstance(node, _Import) for binding in _bound(node)]
    names = [name for name, _ in _names(tree)]
    return {
        bound: name
        for bound, name in at_top
        if _is_ours(name) and names.count(bound) == 1 and bound not in _declared(tree)
    }


def _bound(node: _Import) -> Iterator[tuple[str, str]]:
    """Yield the names that an import binds, with what they stand for. Raises ImportError if it is a relative one."""
    if isinstance(node, ast.ImportFrom) and node.level:
        raise ImportError(f"{ast.unparse(node)}: is relative to a place; write where from, from {PACKAGE.name} on.")
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names:
        yield alias.asname or alias.name, f"{prefix}{alias.name}"


def _names(scope: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Yield each binding of a name in a scope, not in those inside it, with what of this library is bound, if any."""
    if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        found = scope.args
        extra = [argument for argument in (found.vararg, found.kwarg) if argument]
        yield from ((each.arg, None) for each in (*found.posonlyargs, *found.args, *found.kwonlyargs, *extra))
    for node in _own(scope):
        match node:
            case ast.Import() | ast.ImportFrom():
                for bound, name in _bound(node):
                    yield (bound, name) if _is_ours(name) else (bound.partition(".")[0], None)
            case ast.Name(id=bound) if not isinstance(node.ctx, ast.Load):
                yield bound, None
            case ast.FunctionDef(name=bound) | ast.AsyncFunctionDef(name=bound) | ast.ClassDef(name=bound):
                yield bound, None
            case (
                ast.ExceptHandler(name=str(bound))
                | ast.MatchAs(name=str(bound))
                | ast.MatchStar(name=str(bound))
                | ast.MatchMapping(rest=str(bound))
            ):
                yield bound, None


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope, without what lies in the scopes inside it."""
    parts = [getattr(scope, field) for field in ("body", "elt", "key", "value", "generators") if hasattr(scope, field)]
    queue = [node for part in parts for node in (part if isinstance(part, list) else [part])]
    while queue:
        node = queue.pop()
        yield node
        if isinstance(node, _Comprehension):
            queue += [inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)]
        elif isinstance(node, ast.AnnAssign) and node.value is None:
            queue.append(node.annotation)  # which binds nothing
        elif not isinstance(node, _Definition):
            queue += ast.iter_child_nodes(node)


def _declared(tree: ast.Module) -> set[str]:
    """Return the names that functions declare to be those of a scope around them, and may bind there."""
    return {name for node in ast.walk(tree) if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == PACKAGE.name


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


class _Meaning(ast.NodeTransformer):
    """Removes docstrings and imports from this library, and puts what each imported name stands for in its place.

    A name that a scope binds more than once keeps its name and its import, as an assignment: which of its meanings
    counts depends on what is run.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.used = set[str]()
        self._declared = _declared(tree)
        self._scopes: list[tuple[ast.AST, dict[str, str | None]]] = [(tree, self._known(tree))]

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Name | ast.Attribute):
            return self._name(node)
        if isinstance(node, _Import):
            return self._import(node)
        if isinstance(node, _Comprehension):
            self._comprehension(node)
        elif isinstance(node, _Definition):
            self._definition(node)
        else:
            self.generic_visit(node)
        statements = getattr(node, "body", None)
        if isinstance(statements, list):
            statements[:] = [statement for statement in statements if not _is_docstring(statement)] or [ast.Pass()]
        return node

    def _definition(self, node: _Definition) -> None:
        """Visit decorators, defaults and annotations outside of a function or class, and its body inside."""
        self._scopes.append((node, self._known(node)))
        inside: ast.Expression | ast.Module
        if isinstance(node, ast.Lambda):
            inside, node.body = ast.Expression(node.body), ast.Constant(None)
        else:
            inside, node.body = ast.Module(node.body, []), []
        self.generic_visit(inside)
        self._scopes.pop()
        self.generic_visit(node)
        node.body = inside.body

    def _comprehension(self, node: _Comprehension) -> None:
        """Visit what a comprehension runs over outside of it, and the rest inside."""
        first = node.generators[0]
        source, first.iter = self.visit(first.iter), ast.Constant(None)
        self._scopes.append((node, self._known(node)))
        self.generic_visit(node)
        self._scopes.pop()
        first.iter = source

    def _known(self, scope: ast.AST) -> dict[str, str | None]:
        """Return what each name stands for that a scope binds; None where it keeps its name."""
        found: dict[str, set[str | None]] = {}
        for bound, name in _names(scope):
            if isinstance(scope, ast.Module) or bound not in self._declared:
                is_kept = name is None or bound in self._declared or isinstance(scope, ast.ClassDef)
                found.setdefault(bound, set()).add(None if is_kept else _token(str(name)))
        return {bound: next(iter(tokens)) if len(tokens) == 1 else None for bound, tokens in found.items()}

    def _name(self, node: ast.Name | ast.Attribute) -> ast.AST:
        token = self._meant(ast.unparse(node)) if isinstance(node.ctx, ast.Load) else None
        if token is None:
            return self.generic_visit(node)
        return ast.Name(token, node.ctx)

    def _meant(self, name: str) -> str | None:
        """Return what a name stands for in the scope that is visited, None where it keeps its name."""
        perhaps = ""
        for scope, known in reversed(self._scopes):
            is_class = isinstance(scope, ast.ClassDef)
            if is_class and scope is not self._scopes[-1][0]:
                continue  # its names are not those of its methods
            if is_class and name in known:
                perhaps = f"{name}_or_"  # before it is bound in the class, the one outside
            elif name in known or name.partition(".")[0] in known:
                token = known.get(name)
                self.used |= {token} if token is not None else set()
                return None if token is None else f"{perhaps}{token}"
        return None

    def _import(self, node: _Import) -> list[ast.stmt]:
        _, known = self._scopes[-1]
        bindings = [*_bound(node)]
        kept = [(bound, _token(name)) for bound, name in bindings if _is_ours(name) and known.get(bound) is None]
        self.used |= {token for _, token in kept}
        node.names = [alias for alias, (_, name) in zip(node.names, bindings, strict=True) if not _is_ours(name)]
        assigned = [ast.parse(f"{bound} = {token or '_'}").body[0] for bound, token in kept if bound != "*"]
        return [*([node] if node.names else []), *assigned]


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
