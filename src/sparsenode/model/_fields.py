"""What ``setup_anndata`` registers: expression matched by gene name, and trajectories."""

from __future__ import annotations

import numpy as np
import pandas as pd
import rich.pretty  # scvi-tools uses it in view_anndata_setup without importing it
import rich.table
from anndata import AnnData
from scvi.data.fields import BaseAnnDataField, LayerField

from sparsenode._input import _expression
from sparsenode._input._observations import Observations, read_observations
from sparsenode._input._pseudotime import holds_table

TRAJECTORIES = "trajectories"
CONSTANT_GENES = "constant_genes"
COUNTS = "counts"


class ExpressionField(LayerField):
    """Expression of a layer; another AnnData is matched by gene name instead of by position."""

    def __init__(self, registry_key: str, layer: str | None) -> None:
        super().__init__(registry_key, layer, is_count_data=False, correct_data_format=False)

    def validate_field(self, adata: AnnData) -> None:
        """Refuse expression that cannot be fitted."""
        _expression.check_expression(adata, self.attr_key)

    def register_field(self, adata: AnnData) -> dict:
        """Remember the gene names as strings, and which of them do not vary."""
        state = super().register_field(adata)
        state[COUNTS] = _expression.warn_of_counts(adata, self.attr_key)
        state[self.COLUMN_NAMES_KEY] = np.asarray(adata.var_names.astype(str), dtype=object)
        state[CONSTANT_GENES] = _expression.constant_genes(adata, self.attr_key)
        return state

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **_: object) -> dict:
        """Check that every gene of the model is there, in whatever order."""
        self.validate_field(adata_target)
        _expression.gene_positions(adata_target, state_registry[self.COLUMN_NAMES_KEY])
        if not state_registry.get(COUNTS, False):
            _expression.warn_of_counts(adata_target, self.attr_key, fitted=True)
        return state_registry | {self.N_OBS_KEY: adata_target.n_obs}


class TrajectoryField(BaseAnnDataField):
    """Pseudotime, lineages and batches, summarised as a table of trajectories."""

    def __init__(self, adata: AnnData, time_key: str, lineage_key: str | None, batch_key: str | None) -> None:
        super().__init__()
        self.place = "obsm" if holds_table(adata, time_key) else "obs"
        self.time_key, self.lineage_key, self.batch_key = time_key, lineage_key, batch_key

    @property
    def registry_key(self) -> str:
        """Key in the registry."""
        return TRAJECTORIES

    @property
    def attr_name(self) -> str:
        """The field is found through its pseudotime, a column or a table."""
        return self.place

    @property
    def attr_key(self) -> str:
        """Key of the pseudotime."""
        return self.time_key

    @property
    def is_empty(self) -> bool:
        """Never."""
        return False

    def validate_field(self, adata: AnnData) -> None:
        """Refuse annotations that cannot be used."""
        self._read(adata).trajectories()

    def _read(self, adata: AnnData, lineage_names: list[str] | None = None) -> Observations:
        return read_observations(adata, self.time_key, self.lineage_key, self.batch_key, lineage_names)

    def register_field(self, adata: AnnData) -> dict:
        """Remember the trajectories and their order."""
        observations = self._read(adata)
        observations.warn_of_stages()
        return {
            "trajectories": observations.trajectories().reset_index().to_dict("list"),
            "lineages": observations.lineage_names,
        }

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **_: object) -> dict:
        """Keep the trajectories that the model was built for; the lineages must be known to it."""
        self._read(adata_target, state_registry["lineages"]).trajectories()
        return state_registry

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Numbers of trajectories and lineages."""
        return {
            "n_trajectories": len(state_registry["trajectories"]["trajectory"]),
            "n_lineages": len(state_registry["lineages"]),
        }

    def view_state_registry(self, state_registry: dict) -> rich.table.Table | None:
        """Table of trajectories."""
        # The registry sorts its keys.
        frame = pd.DataFrame(dict(state_registry["trajectories"])).set_index("trajectory").reset_index()
        table = rich.table.Table(*map(str, frame.columns), title="Trajectories")
        for row in frame.itertuples(index=False):
            table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
        return table
