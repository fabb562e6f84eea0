"""MuData in, MuData out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._constants import _SCVI_UUID_KEY
from scvi.model.base import BaseModelClass
from scvi.model.base._constants import SAVE_KEYS

from sparsenode import _checks, _keys
from sparsenode.model._assemble import EXPRESSION, REGULATORS, assemble, check_modalities
from sparsenode.model._fields import TRAJECTORIES, ExpressionField, TrajectoryField

if TYPE_CHECKING:
    import pandas as pd


class MuDataManager(AnnDataManager):
    """Manager of the AnnData that is fitted, which knows the MuData that it comes from."""

    mdata: MuData | None = None


class MuDataMixin(BaseModelClass):
    """Methods of :class:`sparsenode.SparseNODE` for MuData."""

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        layer: str | None = None,
        time_key: str = _keys.TIME_KEY,
        lineage_key: str | None = None,
        batch_key: str | None = None,
        regulator_layer: str | None = None,
        modalities: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register expression of one modality, or of two together, with pseudotime, lineages and batches.

        Afterwards everything works as with AnnData: call ``SparseNODE(mdata)``, and pass another MuData with the same modalities to
        ``predict``, ``evaluate`` and ``get_velocity``.

        - **One modality.** ``model.adata`` is the modality itself. Results are written into it; plot with ``mdata["rna"]``.
        - **Two modalities**, if ``modalities`` names one for ``regulator_layer``: activities of transcription factors, or accessibilities
          of genes. Both are states of one field, and regulate themselves and each other. With ``regulators="atac"``, the name of the
          modality, only its variables regulate. Variables are named ``modality:name``, also in ``regulators`` and ``prior``, and
          :meth:`get_adjacency_blocks` splits the adjacency. **Values are copied** into ``model.adata``, which the plots take. Results are
          written back into both modalities.

        Parameters
        ----------
        mdata
            MuData with the modalities. Not a view.
        layer
            Layer with the expression. Default: ``.X`` of the modality.
        time_key, lineage_key, batch_key
            As in :meth:`setup_anndata`. A key is looked up in the modality that ``modalities`` names for it; by default in the modality of
            the expression and in ``mdata.obs`` and ``mdata.obsm``. If it is found elsewhere, it is copied under the same key into the
            modality of the expression, or into the joined data of two modalities.
        regulator_layer
            Layer of the second modality. Default: its ``.X``. There is a second modality only if ``modalities`` names one.
        modalities
            Modality of each argument, for instance ``{"layer": "rna", "time_key": "rna"}``. The one of ``layer`` is required unless there
            is only one modality.
        **kwargs
            ``source_registry``, passed by :meth:`load`.

        Returns
        -------
        Nothing. The data are registered, and annotations that lie elsewhere are written into the modality of the expression, or into the
        joined data.

        Raises
        ------
        KeyError
            If a modality or key does not exist.
        TypeError
            If ``mdata`` is not a MuData, or ``modalities`` is no mapping.
        ValueError
            If a key has different values in the modality and in ``mdata``, two modalities do not have the same cells, ``mdata`` is a view;
            and as in :meth:`setup_anndata`.

        Notes
        -----
        Do not fit two modalities on different scales with the trajectory objective: the larger one would dominate its squared error. Scale
        them first, or use transport, which standardises.

        Examples
        --------
        >>> import sparsenode as sn
        >>> from mudata import MuData
        >>> mdata = MuData({"rna": sn.datasets.krumsiek11()})
        >>> sn.SparseNODE.setup_mudata(mdata, time_key="simulation_time", lineage_key="lineage")
        >>> model = sn.SparseNODE(mdata)
        """
        _checks.setup_arguments(
            kwargs, ("layer", "time_key", "lineage_key", "batch_key", "regulator_layer", "modalities")
        )
        modalities = check_modalities(mdata, modalities)
        if mdata.is_view:
            raise ValueError(
                "Expected `mdata` to be no view, found one: results could not be written to it. Call `.copy()`."
            )
        if regulator_layer is not None and REGULATORS not in modalities:
            raise ValueError("Expected a modality for `regulator_layer` in `modalities`, found none.")
        setup_method_args = cls._get_setup_method_args(**locals())
        saved = kwargs.get("source_registry")  # other cells of a model that is loaded may lack a lineage
        known = None if saved is None else saved["field_registries"][TRAJECTORIES]["state_registry"]["lineages"]
        adata = assemble(mdata, setup_method_args["setup_args"], known)
        manager = cls._register(MuDataManager, adata, setup_method_args, **kwargs)
        manager.mdata = mdata
        mdata.uns[_SCVI_UUID_KEY] = adata.uns[_SCVI_UUID_KEY]

    @classmethod
    def _register(
        cls, manager_class: type[AnnDataManager], adata: AnnData, setup_method_args: dict[str, Any], **kwargs: Any
    ) -> AnnDataManager:
        """Register the AnnData to fit with a manager of its own, as a setup method was asked to."""
        setup = setup_method_args["setup_args"]
        manager = manager_class(
            fields=[
                ExpressionField(REGISTRY_KEYS.X_KEY, setup["layer"]),
                TrajectoryField(adata, setup["time_key"], setup["lineage_key"], setup["batch_key"]),
            ],
            setup_method_args=setup_method_args,
        )
        known = cls._setup_adata_manager_store.get(adata.uns.get(_SCVI_UUID_KEY))
        if known is not None and known.adata is not adata:
            # The mark of cells that these were copied from, which would no longer count as set up once these are.
            del adata.uns[_SCVI_UUID_KEY]
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)
        return manager

    @property
    def mdata(self) -> MuData | None:
        """The MuData of the model; ``None`` if it was made from AnnData or loaded without data."""
        return getattr(self._adata_manager, "mdata", None)

    @property
    def _modalities(self) -> dict[str, str]:
        """Modalities that are fitted, by the argument that named them; empty with AnnData."""
        return self.registry["setup_args"].get("modalities") or {}

    def _check_is_of_mudata(self) -> None:
        """Refuse MuData where the model was made from AnnData."""
        if not self._modalities:
            raise TypeError(
                "Expected an AnnData object, found MuData: the model was set up with AnnData. Pass a modality, `mdata['rna']`."
            )

    @property
    def _is_joint(self) -> bool:
        return REGULATORS in self._modalities

    @classmethod
    def _registered(cls, mdata: MuData) -> AnnData:
        """The AnnData that was assembled when the MuData was set up."""
        manager = cls._setup_adata_manager_store.get(mdata.uns.get(_SCVI_UUID_KEY))
        if manager is None or getattr(manager, "mdata", None) is not mdata:
            raise ValueError(
                "Expected a MuData that was set up, found one that was not, or a copy. Call `SparseNODE.setup_mudata(mdata, …)` "
                "first."
            )
        return manager.adata

    def _from_mudata(self, mdata: MuData) -> AnnData:
        """The AnnData of the model's MuData, or one assembled alike from another."""
        if mdata is self.mdata:
            return self.adata
        self._check_is_of_mudata()
        setup = self.registry["setup_args"]
        check_modalities(mdata, setup["modalities"])
        return assemble(mdata.copy() if mdata.is_view else mdata, setup, self.lineages)

    def _take_mudata(self, mdata: MuData) -> AnnData:
        """The AnnData of a MuData that becomes that of the model, set up as the model's was."""
        if mdata is self.mdata:
            return self.adata
        self._check_is_of_mudata()
        store = self._setup_adata_manager_store
        known = store.get(mdata.uns.get(_SCVI_UUID_KEY))
        # Other models are made of it as it was set up before.
        is_set_up = known is not None and getattr(known, "mdata", None) is mdata
        type(self).setup_mudata(mdata, source_registry=self.registry, **self.registry["setup_args"])
        adata = self._registered(mdata)
        self._register_manager_for_instance(self._get_most_recent_anndata_manager(adata, required=True))
        if is_set_up:
            mdata.uns[_SCVI_UUID_KEY] = known.adata_uuid
            store[known.adata_uuid] = known
        return adata

    def _validate_anndata(self, adata: AnnData | MuData | None = None, *args: Any, **kwargs: Any) -> AnnData:
        """Used by :meth:`load`, which passes what it was given."""
        return super()._validate_anndata(
            self._from_mudata(adata) if isinstance(adata, MuData) else adata, *args, **kwargs
        )

    def _origin(self, joined: AnnData, data: AnnData | MuData | None) -> MuData | None:
        """MuData that cells come from, which takes results of a joint fit; ``None`` for other cells."""
        return data if isinstance(data, MuData) else self.mdata if joined is self.adata else None

    def get_adjacency_blocks(self, lineage: str | None = None, **kwargs: Any) -> dict[tuple[str, str], pd.DataFrame]:
        """Adjacency of two modalities that were fitted together, as four blocks.

        Parameters
        ----------
        lineage
            As in :meth:`get_adjacency`.
        **kwargs
            Further arguments of :meth:`get_adjacency`.

        Returns
        -------
        Dictionary of data frames by modality of the targets and modality of the regulators: ``blocks["rna", "atac"]`` holds how ``atac``
        regulates ``rna``. The index is named ``target``, the columns ``regulator``; variables have the names that they have in their
        modality.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the model does not hold two modalities, or the lineage, replicate or block does not exist.
        """
        if not self._is_joint:
            raise ValueError("Expected a model of two modalities, found one. Name a second in `setup_mudata`.")
        adjacency = self.get_adjacency(lineage, **kwargs)  # type: ignore[attr-defined]
        parts = [self._modalities[argument] for argument in (EXPRESSION, REGULATORS)]
        # A name may begin like both, as with modalities "rna" and "rna:nuclei": the longer one is meant.
        own = [max((part for part in parts if name.startswith(f"{part}:")), key=len) for name in adjacency.index]
        where = {part: np.flatnonzero(np.equal(own, part)) for part in parts}
        return {
            (target, regulator): adjacency.iloc[where[target], where[regulator]]
            .rename(index=lambda name, part=target: name[len(part) + 1 :])
            .rename(columns=lambda name, part=regulator: name[len(part) + 1 :])
            for target in parts
            for regulator in parts
        }

    def get_var_names(self, legacy_mudata_format: bool = False) -> Any:
        """Names of the variables, by modality with MuData.

        Parameters
        ----------
        legacy_mudata_format
            Not used; scvi-tools passes it.

        Returns
        -------
        Array of names, or dictionary of arrays.
        """
        if self.mdata is None:
            return super().get_var_names(legacy_mudata_format)
        fitted = [self._modalities[argument] for argument in (EXPRESSION, REGULATORS) if argument in self._modalities]
        return {name: self.mdata.mod[name].var_names.astype(str).to_numpy() for name in fitted}

    def save(
        self,
        dir_path: str,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the model, optionally with its data; :meth:`load` reads it.

        Parameters
        ----------
        dir_path
            Folder, which must not exist unless ``overwrite`` is ``True``.
        prefix
            Prefix of the file names.
        overwrite
            Whether to write into an existing folder.
        save_anndata
            Whether to save the data too, AnnData or MuData.
        **kwargs
            Further arguments of :meth:`scvi.model.base.BaseModelClass.save`.

        Raises
        ------
        ValueError
            If the folder exists.
        """
        super().save(dir_path, prefix, overwrite, save_anndata=save_anndata and self.mdata is None, **kwargs)
        if save_anndata and self.mdata is not None:
            self.mdata.write(Path(dir_path) / f"{prefix or ''}{SAVE_KEYS.MDATA_FNAME}")
