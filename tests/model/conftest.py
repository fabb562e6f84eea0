"""What the tests of the model share."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

import sparsenode as sn


@pytest.fixture(scope="session")
def times_of() -> Callable[[sn.SparseNODE, str], tuple[np.ndarray, np.ndarray]]:
    """Rows of a lineage sorted by pseudotime, and these pseudotimes."""

    def sort(model: sn.SparseNODE, lineage: str) -> tuple[np.ndarray, np.ndarray]:
        obs = model.adata.obs
        rows = np.flatnonzero(obs["lineage"] == lineage)
        rows = rows[np.argsort(obs["dpt_pseudotime"].to_numpy()[rows])]
        return rows, obs["dpt_pseudotime"].to_numpy()[rows]

    return sort


@pytest.fixture(scope="session")
def quietly() -> Callable[..., np.ndarray]:
    """Predictions at times, without the warnings that some of these are outside the data."""

    def predict(model: sn.SparseNODE, times, **arguments) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return model.predict(times=times, **arguments)

    return predict


@pytest.fixture(scope="session")
def numpy_field() -> Callable[..., Callable[[np.ndarray], np.ndarray]]:
    """The field of a model in the units of the data, evaluated with numpy: cells × genes to slopes per pseudotime."""

    def build(model: sn.SparseNODE, lineage: int = 0, replicate: int = 0) -> Callable[[np.ndarray], np.ndarray]:
        module = model.module
        network = replicate * module.n_fields + (lineage if module.n_fields > 1 else 0)
        effective = module.field.effective_weights()
        weights = [w[network].detach().double().numpy() for w in effective.weights]
        biases = [b[network].detach().double().numpy() for b in effective.biases]
        decay = 0.0 if effective.decay is None else effective.decay[network].detach().double().numpy()
        centre, scale, unit = module.centre.double().numpy(), module.scale.double().numpy(), float(module.time_unit)

        def slope(x: np.ndarray) -> np.ndarray:
            h = inputs = (np.atleast_2d(x) - centre) / scale
            for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                h = h @ weight.T + bias
                if layer < len(weights) - 1:
                    h = np.where(h > 0, h, np.expm1(np.minimum(h, 0)))
            return scale / unit * (h - decay * inputs)

        return slope

    return build
