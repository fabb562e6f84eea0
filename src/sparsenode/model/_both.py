"""The objective "both": the network of a transport fit, and its zeros in the fields that are fitted to trajectories."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sparsenode._errors import DivergenceError
from sparsenode.model._response import unshrunk
from sparsenode.module import SparseNODEModule
from sparsenode.objectives import Transport

if TYPE_CHECKING:
    import pandas as pd

    from sparsenode.model._training import TrainingMixin

# Arguments of training that hold the state of one fit.
_OF_ONE_FIT = ("callbacks", "logger")


def find_network(model: TrainingMixin, given: dict[str, Any]) -> pd.DataFrame | None:
    """Fit transport with one field for all lineages; keep its network, and its zeros in the weights of the module.

    Parameters
    ----------
    model
        Model that is not trained, with the objective "both".
    given
        Arguments of :meth:`sparsenode.SparseNODE.train`; callbacks and loggers are copied.

    Returns
    -------
    The steps of its sparsification, if there are any.
    """
    own = copy.deepcopy({name: given[name] for name in _OF_ONE_FIT if name in given})
    found = copy.copy(model)
    found.objective = Transport()
    found._keeps_pairs = True
    found.module = SparseNODEModule(**(model._module_arguments | {"fields": "shared"}))
    try:
        found.train(**(given | own), key_added=None)
    except DivergenceError as error:
        error.add_note('It was the fit of the network, without which `objective="both"` leaves the model as it was.')
        raise
    model.given_up_ = found.given_up_
    # Units of a transport fit are standard deviations of genes and of displacements.
    model.network_ = [
        [sparse.csr_array(found._mean_effects(lineage, r).astype(np.float32)) for lineage in model.lineages]
        for r in range(model.module.n_replicates)
    ]
    scale, rate = (buffer.double().cpu().numpy() for buffer in (found.module.scale, found.module.rate))
    model.network_units_ = np.stack([scale, rate])
    rates = np.zeros((model.module.n_replicates, len(rate)))
    if found.module.field.decay is not None:
        rates += found.module.field.decay.detach().double().cpu().numpy()[:, 0]
    model.network_decay_ = rate * rates
    means = [sum(one.astype(np.float64) for one in of_one) / len(of_one) for of_one in model.network_]
    model.unshrunk_ = np.array([unshrunk(*both, found._kept_pairs) for both in zip(means, rates, strict=True)])
    model.network_history_ = dict(found.history_ or {})
    model.module.take_zeros(found.module)
    return found.sparsification_
