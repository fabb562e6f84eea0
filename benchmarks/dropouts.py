"""Networks of the cells of ``simulated_networks.py`` with dropouts, beside baselines.

As in BoolODE: where a gene is below a quantile of its expression, it is set to zero with a probability that is the same as the quantile.
Pseudotime is that of the cells before. Everything else is as in ``simulated_networks.py``, and nothing was chosen with dropouts.
"""

from __future__ import annotations

from itertools import product

import _boolean_cells as boolean
import _common
import anndata
import numpy as np
import pandas as pd
import simulated_networks
from _timing import silence

N_CELLS = 2000
QUANTILES = (0.5, 0.7)


def dropped(adata: anndata.AnnData, quantile: float, seed: int) -> anndata.AnnData:
    """The cells with low values of every gene set to zero at random."""
    result = adata.copy()
    low = adata.X < np.quantile(adata.X, quantile, axis=0)
    result.X[low & (np.random.default_rng(seed).random(adata.shape) < quantile)] = 0.0
    return result


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    parser.add_argument("--quantiles", type=float, nargs="+", default=QUANTILES, help="quantiles, and probabilities")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the cells and of the dropouts")
    options = parser.parse_args()
    outside = [quantile for quantile in options.quantiles if not 0 <= quantile <= 1]
    if outside:
        parser.error(f"Expected --quantiles between 0 and 1, found {outside}.")
    n_cells, n_networks = (200, 1) if options.quick else (N_CELLS, None)
    silence()
    rows = []
    for name, network in list(simulated_networks.networks().items())[:n_networks]:
        for quantile, seed in product(options.quantiles, options.seeds):
            cells = dropped(boolean.cells(network, n_cells, seed), quantile, seed)
            found = simulated_networks.score(name, network, cells, seed)
            rows += [{"quantile": quantile, "zeros": float((cells.X == 0).mean()), **row} for row in found]
        print(f"done: {name}", flush=True)
    table = pd.DataFrame(rows)
    shown = table.pivot_table(
        index=["quantile", "network"], columns="method", values="auprc_ratio", aggfunc="median", sort=False
    )
    print(shown.round(2).to_string())
    _common.save("dropouts", rows, options)


if __name__ == "__main__":
    main()
