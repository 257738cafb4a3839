"""Selection: which rows of a summary are looked at, and in which order."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from outlier_features.errors import ConfigError

KINDS = ("dense", "moe")


@dataclass(frozen=True)
class Selection:
    """Rows of a summary by definition, kind and family, in the order of a column; all as they are by default."""

    definition: str | None = None
    kind: Literal["dense", "moe"] | None = None
    family: str | None = None
    """How the name of the architecture's class begins, in any case: `qwen3` takes Qwen3MoeForCausalLM too."""
    sort: str | None = None
    descending: bool = False

    def of(self, summary: pd.DataFrame) -> pd.DataFrame:
        """Return the selected rows of a summary, sorted; rows without a value come last in both directions.

        Raises ConfigError, with what is allowed, for a definition, kind, family or column that the summary does not
        have. A known kind of which there is no model leaves no row.
        """
        self._check(summary)
        rows = self.matching(summary)
        if self.sort is None:
            return rows
        return rows.sort_values(self.sort, ascending=not self.descending, kind="stable", na_position="last")

    def matching(self, summary: pd.DataFrame, name: str = "the summary") -> pd.DataFrame:
        """Return the selected rows of a summary in its own order; there may be none.

        Raises ConfigError, which calls the summary by `name`, if it cannot tell families.
        """
        rows = summary
        if self.definition is not None:
            rows = rows[rows["definition"] == self.definition]
        if self.kind is not None:
            rows = rows[rows["kind"] == self.kind]
        if self.family is not None:
            names = _architectures(rows, name).str.lower()
            rows = rows[names.str.startswith(self.family.lower())]
        return rows

    @property
    def words(self) -> str:
        """What a row has to be, as an addition to a sentence; empty where any will do."""
        wanted = {name: getattr(self, name) for name in ("definition", "kind", "family")}
        return ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)

    def _check(self, summary: pd.DataFrame) -> None:
        if self.definition is not None:
            _known("definition", self.definition, list(summary["definition"].unique()))
        if self.kind is not None:
            _known("kind", self.kind, list(KINDS))
        if self.family is not None:
            present = sorted(_architectures(summary, "the summary").unique())
            if not any(name.lower().startswith(self.family.lower()) for name in present):
                known = ", ".join(present) or "none"
                raise ConfigError(f"unknown family {self.family!r}: no architecture begins so; present: {known}")
        if self.sort is not None:
            _known("column to sort by", self.sort, list(summary.columns))
        elif self.descending:
            raise ConfigError("a descending order needs a column to sort by; name it with --sort")


def _architectures(summary: pd.DataFrame, name: str) -> "pd.Series[str]":
    """Return the class name of each row's architecture."""
    if "architecture" not in summary:
        raise ConfigError(
            f"{name}: made before summaries had the column architecture, so families cannot be told; make it again "
            "with snakemake or summarize, or leave --family out."
        )
    return summary["architecture"].astype(str)


def _known(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise ConfigError(f"unknown {what} {name!r}; allowed: {', '.join(known) or 'none, the summary is empty'}")
