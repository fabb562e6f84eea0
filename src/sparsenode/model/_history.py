"""Tables of metrics by epoch, over all trainings of a model."""

from __future__ import annotations

import numpy as np
import pandas as pd


def history_table(history: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per epoch, one column per metric, as floats."""
    columns = [frame.iloc[:, 0].rename(name).astype(float) for name, frame in history.items()]
    table = pd.concat(columns, axis=1).sort_index()
    table.index = table.index.astype(np.int64)
    table.index.name = "epoch"
    return table


def continued(earlier: dict[str, pd.DataFrame], later: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Metrics of a training after those of the trainings before it, whose epochs are counted on.

    scvi-tools counts every metric by itself, which shifts those that are not there in every epoch, and drops those that were not
    there before.
    """
    first = 1 + max((int(frame.index.max()) for frame in earlier.values() if len(frame)), default=-1)
    result = dict(earlier)
    for name, frame in later.items():
        shifted = frame.set_axis(pd.Index(frame.index.astype(np.int64) + first, name=frame.index.name))
        result[name] = pd.concat([earlier[name], shifted]) if name in earlier else shifted
    return result
