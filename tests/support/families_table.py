"""What was seen of each family of models, as a table for the end of a run of the tests."""

import torch


class Table:
    """What was seen of each family, one row each, printed at the end of the tests."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, str]] = {}

    def add(self, family: str, model: str, blocks: int, rows: dict[str, int], dtype: torch.dtype) -> None:
        """Note that a family's logits and sites equal the ordinary forward in one precision."""
        row = self._rows.setdefault(family, {})
        row |= {"model": model, "blocks": str(blocks)} | {site: str(count) for site, count in rows.items()}
        row[str(dtype).removeprefix("torch.")] = "equal"

    def add_rows(self, family: str, rows: dict[str, int]) -> None:
        """Note how many rows of further sites, over all blocks and windows, equal those of independent hooks."""
        self._rows.setdefault(family, {}).update({site: str(count) for site, count in rows.items()})

    def lines(self) -> list[str]:
        """Return the table as lines of text."""
        columns = ("model", "blocks", "attn_in", "out_proj_in", "mlp_in", "residual", "float32", "bfloat16")
        columns += ("down_in", "shared_down_in", "keys", "values")
        rows = [("family", *columns)]
        rows += [(family, *(row.get(column, "-") for column in columns)) for family, row in self._rows.items()]
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
