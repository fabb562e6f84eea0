"""The registry in ``sparsenode/regularizers/__init__.py``."""

from __future__ import annotations

import numpy as np
import pytest

from sparsenode import regularizers
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg, get

NAMES = {cls.name: cls for cls in (NoRegularizer, CNODE, L0, PathReg, GroupLasso, LassoNet)}


@pytest.mark.parametrize("name", NAMES)
def test_names_give_objects_with_defaults(name):
    assert set(NAMES) == {"none", "cnode", "l0", "pathreg", "grouplasso", "lassonet"}
    found = get(name)
    assert type(found) is NAMES[name]
    assert found.name == name
    assert repr(found) == repr(NAMES[name]())


def test_every_regularizer_is_registered_and_exported():
    helpers = {"get", "path_norm", "soft_threshold_paths", "Regularizer"}
    exported = {getattr(regularizers, name) for name in set(regularizers.__all__) - helpers}
    assert exported == set(NAMES.values())
    assert set(regularizers._REGISTRY.values()) == exported


def test_objects_are_copied():
    """What is done to them later does not reach a model."""
    strengths = np.array([0.3, 1.0])
    regularizer = PathReg(strengths, gates="weight")
    found = get(regularizer)
    assert repr(found) == repr(regularizer)
    strengths[0] = 5.0
    assert regularizer.strength.tolist() == [0.3, 1.0]
    regularizer.strength[0] = 7.0
    assert found.strength.tolist() == [0.3, 1.0]


def test_names_give_a_new_object_each_time():
    assert get("pathreg") is not get("pathreg")


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match="pathregs") as error:
        get("pathregs")
    for name in NAMES:
        assert repr(name) in str(error.value)


@pytest.mark.parametrize("wrong", [PathReg, None, 0.1, ["pathreg"]], ids=["class", "None", "number", "list"])
def test_neither_name_nor_object_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="pathreg"):
        get(wrong)
