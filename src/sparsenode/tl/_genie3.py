"""GENIE3: arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from sklearn.utils.parallel import Parallel, delayed

from sparsenode.tl._association import standardise


def genie3(x: np.ndarray, regulators: np.ndarray, n_trees: int, n_jobs: int, seed: int) -> np.ndarray:
    """Importance of every regulator in a random forest that predicts a gene from them :cite:p:`huynhthu2010inferring`.

    Targets are scaled to unit variance and importances are not normalised per target, as in the paper: an importance is
    the share of the target's variance that the splits on the regulator remove.

    Parameters
    ----------
    x
        Expression, cells × genes.
    regulators
        Columns of the regulators. Their order decides which ones a tree draws, so it changes the last digits.
    n_trees
        Trees of each forest. At every split a tree considers the square root of the number of regulators.
    n_jobs
        Forests that are fitted at the same time, in threads.
    seed
        Seed of every forest.

    Returns
    -------
    Regulators × genes, non-negative; zero for a gene and itself, and for genes without variance.
    """
    targets = standardise(x)
    inputs = np.asfortranarray(x[:, regulators], dtype=np.float32)
    columns = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_importances)(inputs, targets[:, gene], regulators != gene, n_trees, seed) for gene in range(x.shape[1])
    )
    return np.stack(columns, axis=1)


def _importances(inputs: np.ndarray, target: np.ndarray, usable: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    """Importance of each input for one target, zero for those that are not usable."""
    from sklearn.ensemble import RandomForestRegressor  # 20 ms that only this function needs

    result = np.zeros(inputs.shape[1])
    if target.any() and usable.any():
        forest = RandomForestRegressor(n_trees, max_features="sqrt", random_state=seed)
        forest.fit(inputs[:, usable], target)
        shares = [tree.tree_.compute_feature_importances(normalize=False) for tree in forest.estimators_]
        result[usable] = np.mean(shares, axis=0)
    return result
