"""A table whose cells are buttons, as a notebook widget: press one to see the pictures behind it.

    def behind(cell):
        row, column = cell
        return edits[row].images              # whatever a panel shows

    panel(behind, {"cell": TablePicker(results.table("precision"))})

No paper. Next: panel.py, which shows what the function returns.
"""

from traitlets import Any, Int, List, Unicode, observe, validate

from .common import CSS, Widget, script


class TablePicker(Widget):
    """The table of `results.table`, a DataFrame, or {row: {column: value}}.

    value: the (row, column) that is pressed, at first the upper left one. Empty cells are none.
    label: what stands above the table.
    """

    _esm, _css = script("table.js"), CSS
    _rows: List = List().tag(sync=True)
    _columns: List = List().tag(sync=True)
    _cells: List = List().tag(sync=True)  # the texts, row by row
    _at = List(Int(), [0, 0]).tag(sync=True)
    label = Unicode("Press a cell to see what is behind it").tag(sync=True)
    value = Any()

    def __init__(self, table, value=None, **traits):
        super().__init__(**traits)
        rows = _rows(table)
        self._rows = list(rows)
        self._columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        self._cells = [
            [_text(row.get(column)) for column in self._columns] for row in rows.values()
        ]
        full = [(i, j) for i, row in enumerate(self._cells) for j, text in enumerate(row) if text]
        if not full:
            raise ValueError("the table has no cell with a value: pass {row: {column: value}}")
        self.value = self._named(*full[0]) if value is None else value
        self.add_class("bl-table-picker")

    def _named(self, row, column):
        return self._rows[row], self._columns[column]

    @validate("value")
    def _checked_value(self, proposal):
        row, column = proposal.value
        if row not in self._rows or column not in self._columns:
            names = f"rows {', '.join(self._rows)}; columns {', '.join(self._columns)}"
            raise ValueError(f"the table has no cell {(row, column)}: it has {names}")
        if not self._cells[self._rows.index(row)][self._columns.index(column)]:
            raise ValueError(f"the cell {(row, column)} is empty: take one with a value")
        return row, column

    @observe("value")
    def _send_value(self, change):
        row, column = self.value
        self._at = [self._rows.index(row), self._columns.index(column)]

    @observe("_at")
    def _read_at(self, change):
        self.value = self._named(*self._at)


def _rows(table) -> dict:
    """{row: {column: value}} with texts for names."""
    if hasattr(table, "cells") and hasattr(table, "columns"):  # measuring.results.Table
        named = {row[0]: dict(zip(table.columns, row[1:], strict=True)) for row in table.cells()}
    else:
        named = table.to_dict("index") if hasattr(table, "to_dict") else table
    return {str(row): {str(key): v for key, v in cells.items()} for row, cells in named.items()}


def _text(value) -> str:
    """A value as it stands in its cell; None and NaN leave it empty."""
    if value is None or value != value:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
