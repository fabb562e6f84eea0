from __future__ import annotations

import logging
import warnings

import pytest

import sparsenode as sn
from sparsenode.training._messages import without_noise


def test_tips_are_left_out_and_all_else_is_said(caplog):
    lightning = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO, lightning.name), warnings.catch_warnings():
        warnings.simplefilter("error")
        with without_noise():
            lightning.info("Tip: try installing [litlogger]")
            lightning.info("GPU available: False")
            warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use another", FutureWarning, stacklevel=1)
            with pytest.raises(FutureWarning, match="other"):
                warnings.warn("other things are deprecated", FutureWarning, stacklevel=1)
        lightning.info("Tip: try installing [litlogger] again")
    assert [record.getMessage() for record in caplog.records] == [
        "GPU available: False",
        "Tip: try installing [litlogger] again",
    ]


@pytest.mark.parametrize("objective", ["trajectory", "both"])
def test_training_is_quiet(make_adata, caplog, objective):
    adata = make_adata(n_obs=240)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, objective=objective, hidden=(4,))
    with caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.train(max_epochs=1, steps_per_epoch=1, accelerator="cpu", enable_progress_bar=False)
    assert "litlogger" not in caplog.text
    assert not [str(one.message) for one in caught if issubclass(one.category, FutureWarning)]
