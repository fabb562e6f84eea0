"""A training that does not come to its end leaves the model as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsenode.model._training import TrainingMixin


def snapshot(model: TrainingMixin) -> Callable[[], None]:
    """Remember weights and attributes of a model.

    Returns
    -------
    Function that puts them back, and the module into the state of test time.
    """
    module = model.module
    attributes = vars(model) | {"history_": copy.copy(model.history_)}  # scvi-tools adds to the table that is there
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def put_back() -> None:
        model.__dict__.update(attributes)
        for name in vars(model).keys() - attributes:
            delattr(model, name)
        module.load_state_dict(state)
        module.eval()

    return put_back
