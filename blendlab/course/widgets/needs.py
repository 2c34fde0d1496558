"""Which lines of a notebook a function needs, so that a saved picture can be made again without it.

The lines of the executed cells are gone through from the last to the first: a line stays if it
makes or changes a name that is needed, and then the names that it reads are needed too. Of a name
that a function reads when it is called, all lines stay. What a function changes outside itself is
not seen. No paper. Read next: remake.py, which saves them.
"""

import ast
import symtable
from itertools import chain
from textwrap import dedent

BINDS = (ast.Assign, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)  # whatever happens
AT_ONCE = ("listcomp", "setcomp", "dictcomp", "genexpr")  # functions to symtable, but read at once
INSIDE = (ast.FunctionDef, ast.ClassDef, ast.Lambda)  # what stands there is not executed


def of(function) -> str:
    """The lines that a function of this notebook needs; nothing where there is no notebook."""
    from inspect import getsource

    from IPython import get_ipython

    shell = get_ipython()
    if shell is None or function.__module__ != "__main__":
        return ""
    return lines(dedent(getsource(function)), shell.user_ns["In"])


def lines(code: str, cells) -> str:
    """The statements of cells, in their order, that code of Python depends on."""
    statements = list(chain.from_iterable(map(_statements, cells)))
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for _, tree in statements
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    wanted = {name for source, _ in _statements(code) for name in set.union(*_names(source)[1:])}
    known: set | None = None
    late: set = set()  # what kept functions read, at a time that nobody knows
    while late != known:
        known = late
        kept, late = _back(statements, wanted, imported, known)
    return "\n".join(kept)


def _back(statements, wanted, imported, late):
    """The sources to keep, and `late` with what their functions read: all values of it are kept."""
    needed, kept = wanted | late, []
    for source, tree in reversed(statements):
        made, now, later = _names(source)
        if not (made | _changed(tree) - imported) & needed:
            continue
        late = late | later
        if isinstance(tree, BINDS):
            needed -= made - late
        needed |= now | later
        kept.append(source)
    return kept[::-1], late


def _statements(cell):
    """(source, tree) of each; none of a cell that is no Python."""
    try:
        trees = ast.parse(cell).body
    except SyntaxError:
        return []
    text = cell.splitlines()
    starts = [min([t.lineno, *(d.lineno for d in getattr(t, "decorator_list", []))]) for t in trees]
    ends = [0, *(t.end_lineno for t in trees)]
    firsts = [a > end for a, end in zip(starts, ends, strict=False)] + [True]  # of their line
    return [
        (
            "\n".join(text[a - 1 : t.end_lineno])  # with comments; of a; b each its own part
            if first and alone
            else ast.get_source_segment(cell, t),
            t,
        )
        for a, t, first, alone in zip(starts, trees, firsts, firsts[1:], strict=False)
    ]


def _names(source):
    """The names that a statement makes, those that it reads now, and in functions, when called."""
    table = symtable.symtable(source, "cell", "exec")
    symbols = table.get_symbols()
    made = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    read = {False: {s.get_name() for s in symbols if s.is_referenced()}, True: set()}
    inner = [(scope, False) for scope in table.get_children()]
    while inner:
        scope, later = inner.pop()
        later = later or scope.get_type() == "function" and scope.get_name() not in AT_ONCE
        read[later] |= {s.get_name() for s in scope.get_symbols() if s.is_global()}
        inner += [(child, later) for child in scope.get_children()]
    if isinstance(ast.parse(source).body[0], ast.AugAssign):
        read[False] |= made
    return made, read[False], read[True]


def _changed(tree):
    """Names whose value a statement changes: x[i] = 1, x.y = 1, x.append(1)."""
    found, inner = set(), [tree]
    while inner:
        node = inner.pop()
        if isinstance(node, INSIDE):
            continue
        inner += ast.iter_child_nodes(node)
        parts = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            parts = [node.value.func]
        for part in parts:
            while isinstance(part, (ast.Attribute, ast.Subscript)):
                part = part.value
                if isinstance(part, ast.Name):
                    found.add(part.id)
    return found
