from __future__ import annotations

import pytest
import torch

from sparsenode.module._layout import Layout

CASES = {
    "shared": ([0, 0, 0, 0], 1),
    "one trajectory": ([0], 1),
    "one each": ([0, 1, 2], 3),
    "uneven": ([1, 0, 1, 2, 1], 3),
    "reversed": ([2, 1, 0], 3),
    "lineage without trajectories": ([0, 2, 2], 3),
    "first lineage without trajectories": ([1, 2, 2], 3),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    return request.param


@pytest.fixture
def x(case):
    return torch.arange(2 * len(case[0]) * 3, dtype=torch.float64).reshape(2, len(case[0]), 3)


def test_gather_undoes_spread(case, x):
    layout = Layout.of(*case)
    assert torch.equal(layout.gather(layout.spread(x)), x)


def test_every_trajectory_stands_in_the_network_of_its_field(case, x):
    fields, n_fields = case
    spread = Layout.of(fields, n_fields).spread(x)
    assert spread.shape[0] == 2 * n_fields
    for replicate in range(2):
        for trajectory, field in enumerate(fields):
            places = spread[replicate * n_fields + field]
            assert (places == x[replicate, trajectory]).all(1).sum() >= 1


def test_a_network_sees_trajectories_of_its_own_field_alone(case, x):
    """Places that are not needed repeat one of them: what is found over all places is that of the field."""
    fields, n_fields = case
    spread = Layout.of(fields, n_fields).spread(x)
    for field in set(fields):
        own = x[0, [trajectory for trajectory, of in enumerate(fields) if of == field]]
        assert (spread[field][:, None] == own).all(2).any(1).all()


def test_no_more_places_than_the_largest_lineage_needs(case):
    fields, n_fields = case
    assert Layout.of(fields, n_fields).grid.shape == (n_fields, max(fields.count(f) for f in fields))


def test_every_trajectory_has_one_place_that_is_used(case):
    """What is summed over used places counts each of them once."""
    fields, n_fields = case
    layout = Layout.of(fields, n_fields)
    assert layout.used.sum(1).tolist() == [fields.count(field) for field in range(n_fields)]
    assert layout.used.flatten()[layout.place].tolist() == [1] * len(fields)


def test_gather_keeps_trailing_axes(case, x):
    layout = Layout.of(*case)
    places = layout.spread(x)
    times = torch.stack([places, 10 * places], dim=2)
    assert torch.equal(layout.gather(times), torch.stack([x, 10 * x], dim=2))


def test_gather_of_what_one_network_computed_lands_on_its_trajectories():
    # Add 100 times the network's number to all of its places: replicate 1, lineage 0 is network 2.
    layout = Layout.of([1, 0, 1], 2)
    places = layout.spread(torch.zeros(2, 3, 1)) + 100 * torch.arange(4).view(4, 1, 1)
    assert layout.gather(places).squeeze(2).tolist() == [[100, 0, 100], [300, 200, 300]]


def test_moving_to_the_same_device_keeps_the_layout():
    layout = Layout.of([1, 0, 1], 2)
    moved = layout.to(torch.device("cpu"))
    assert torch.equal(moved.grid, layout.grid)
    assert torch.equal(moved.place, layout.place)


def test_both_parts_move_to_another_device():
    moved = Layout.of([1, 0, 1], 2).to(torch.device("meta"))
    assert (moved.grid.device.type, moved.place.device.type) == ("meta", "meta")
