"""Regularizers of the vector field, by name or as objects."""

import copy
from collections.abc import Callable

from sparsenode.regularizers._base import Regularizer, path_norm, soft_threshold_paths
from sparsenode.regularizers._cnode import CNODE
from sparsenode.regularizers._grouplasso import GroupLasso
from sparsenode.regularizers._l0 import L0
from sparsenode.regularizers._lassonet import LassoNet
from sparsenode.regularizers._none import NoRegularizer
from sparsenode.regularizers._pathreg import PathReg

_METHODS = (NoRegularizer, CNODE, L0, PathReg, GroupLasso, LassoNet)
_REGISTRY: dict[str, Callable[[], Regularizer]] = {cls.name: cls for cls in _METHODS}


def get(regularizer: str | Regularizer) -> Regularizer:
    """Regularizer of a given name with its defaults, or a copy of an object.

    Parameters
    ----------
    regularizer
        One of the registered names, or an object such as ``PathReg(strength=0.1)``.

    Returns
    -------
    The regularizer.

    Raises
    ------
    ValueError
        If no regularizer has that name; the message lists the valid ones.
    TypeError
        If it is neither a name nor a regularizer, for instance the class itself.
    """
    if isinstance(regularizer, Regularizer):
        return copy.deepcopy(regularizer)
    if isinstance(regularizer, str):
        if regularizer not in _REGISTRY:
            raise ValueError(
                f"Expected `regularizer` to be one of {sorted(_REGISTRY)} or a Regularizer object, "
                f"found {regularizer!r}."
            )
        return _REGISTRY[regularizer]()
    raise TypeError(
        f"Expected `regularizer` to be a name ({sorted(_REGISTRY)}) or an object such as `PathReg(strength=0.1)`, "
        f"found {regularizer!r}."
    )


__all__ = [
    "CNODE",
    "GroupLasso",
    "L0",
    "LassoNet",
    "NoRegularizer",
    "PathReg",
    "Regularizer",
    "get",
    "path_norm",
    "soft_threshold_paths",
]
