"""Adjacency, edges and sparsity, against weights set by hand and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sparsenode as sn


def clear(model: sn.SparseNODE) -> None:
    """Set all weights to zero and open all gates."""
    with torch.no_grad():
        for weight in [*model.module.field.weights, *model.module.field.biases]:
            weight.zero_()
        for logits in model.module.field.gate_logits:
            logits.fill_(10.0)


def connect(model: sn.SparseNODE, source: str, target: str, value: float, unit: int = 0, network: int = 0) -> None:
    """Make one gene drive another through one hidden unit of each layer."""
    first, second, third = model.module.field.weights
    genes = list(model.genes)
    with torch.no_grad():
        first[network, unit, genes.index(source)] = 0.5
        second[network, unit, unit] = 2.0
        third[network, genes.index(target), unit] = value


@pytest.fixture(params=["none", "cnode", "l0", "pathreg"])
def model(request, adata, fit) -> sn.SparseNODE:
    fitted = fit(adata, regularizer=request.param, train={"max_epochs": 1, "key_added": None})
    clear(fitted)
    return fitted


def brute_force(model: sn.SparseNODE, network: int) -> np.ndarray:
    weights = [w[network].detach().double().numpy() for w in model.module.field.effective_weights().weights]
    matrix = np.abs(weights[0])
    for weight in weights[1:]:
        matrix = np.abs(weight) @ matrix
    return matrix / float(model.module.time_unit)


# Orientation, sign and size


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_gene_drives_another(model, numpy_field, sign):
    connect(model, "gene2", "gene5", 3.0 * sign)
    adjacency = model.get_adjacency("erythroid")
    assert (adjacency.index.name, adjacency.columns.name) == ("target", "regulator")
    assert list(adjacency.index) == list(adjacency.columns) == list(model.genes)
    expected = np.zeros((8, 8))
    expected[5, 2] = 3.0 * sign / model.trajectories.eval("end - start").max()  # per unit of pseudotime
    np.testing.assert_allclose(adjacency, expected, rtol=1e-6)
    # And the field agrees: gene2 up moves the slope of gene5, of no other gene, in that direction.
    field, x = numpy_field(model, 0), np.linspace(0.3, 1.2, 8)
    moved = x + 0.1 * np.eye(8)[2]
    without_decay = field(moved)[0] - field(x)[0] + decay(model, moved) - decay(model, x)
    assert np.sign(without_decay[5]) == sign
    np.testing.assert_allclose(np.delete(without_decay, 5), 0, atol=1e-7)
    assert abs(without_decay[5]) <= 0.1 * abs(expected[5, 2]) * (1 + 1e-6)


def decay(model: sn.SparseNODE, x: np.ndarray) -> np.ndarray:
    return model.module.field.decay[0, 0].detach().double().numpy() / float(model.module.time_unit) * x


@pytest.mark.parametrize("weights", ["paths", "jacobian"])
def test_lineages_have_their_own_networks(model, weights):
    connect(model, "gene0", "gene1", 1.0, network=0)
    connect(model, "gene3", "gene4", -1.0, network=1)
    first, second, mean = (model.get_adjacency(name, weights=weights) for name in ("erythroid", "myeloid", None))
    assert np.argwhere(first.to_numpy()).tolist() == [[1, 0]]
    assert np.argwhere(second.to_numpy()).tolist() == [[4, 3]]
    np.testing.assert_allclose(mean, (first + second) / 2, rtol=1e-6)
    assert mean.loc["gene4", "gene3"] < 0 < mean.loc["gene1", "gene0"]


def test_paths_of_a_shared_field_are_the_same_for_every_lineage(fitted_donors):
    bounds = fitted_donors.get_adjacency(signed=False)
    for lineage in fitted_donors.lineages:
        np.testing.assert_array_equal(fitted_donors.get_adjacency(lineage, signed=False), bounds)


def test_effects_in_a_lineage_are_per_standard_deviation_of_the_regulator_among_its_cells(fitted_donors):
    model = fitted_donors
    x, memberships = model.adata.X[model.train_indices], model.adata.obsm["memberships"].iloc[model.train_indices]
    everything = np.tile(x, (2, 1)), memberships.to_numpy().T.ravel()
    pooled = np.sqrt(np.cov(everything[0].T, aweights=everything[1], ddof=0).diagonal())
    for lineage in model.lineages:
        own = np.sqrt(np.cov(x.T, aweights=memberships[lineage], ddof=0).diagonal())
        jacobian = model.get_adjacency(lineage, weights="jacobian").to_numpy()
        effect = model.get_adjacency(lineage, weights="effect").to_numpy()
        np.testing.assert_allclose(effect, jacobian * own / pooled[:, None], rtol=1e-4, atol=1e-9)
    mean = np.mean([model.get_adjacency(lineage, weights="jacobian") for lineage in model.lineages], 0)
    np.testing.assert_allclose(model.get_adjacency(weights="jacobian"), mean, rtol=1e-6)


def test_unsigned(model):
    connect(model, "gene0", "gene1", -1.0)
    assert model.get_adjacency("erythroid", signed=False).loc["gene1", "gene0"] > 0


@pytest.mark.parametrize("replicate", [0, 1])
def test_size_against_brute_force(fitted, fitted_donors, replicate):
    np.testing.assert_allclose(
        fitted_donors.get_adjacency(signed=False, replicate=replicate), brute_force(fitted_donors, replicate), rtol=1e-5
    )
    for network, lineage in enumerate(fitted.lineages):
        np.testing.assert_allclose(fitted.get_adjacency(lineage, signed=False), brute_force(fitted, network), rtol=1e-5)
    both = (brute_force(fitted, 0) + brute_force(fitted, 1)) / 2
    np.testing.assert_allclose(fitted.get_adjacency(signed=False), both, rtol=1e-5)


def test_selected_replicate_is_the_default(fitted_donors):
    np.testing.assert_array_equal(
        fitted_donors.get_adjacency(), fitted_donors.get_adjacency(replicate=fitted_donors.selected_)
    )
    assert not np.allclose(fitted_donors.get_adjacency(replicate=0), fitted_donors.get_adjacency(replicate=1))


def test_adjacency_bounds_the_jacobian_and_has_its_sign(adata, fit, numpy_field):
    """Numerical derivatives along the trajectory: none exceeds A, and their mean has the sign of A."""
    model = fit(adata, regularizer="none", train={"max_epochs": 1, "key_added": None})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.module.field.weights:
            weight.normal_(0, 0.3, generator=generator)
        model.module.field.weights[0][:, :, 4] = 0.0
    times = np.linspace(*model.trajectories.loc["erythroid", ["start", "end"]], 26)
    with pytest.warns(UserWarning, match="myeloid"):
        states = model.predict(times=times)[0]
    field, step = numpy_field(model, 0), 1e-5
    slopes = [[(field(x + step * e) - field(x - step * e))[0] / (2 * step) for e in np.eye(8)] for x in states]
    jacobians = np.transpose(slopes, (0, 2, 1)) + np.diag(decay(model, np.ones(8)))
    adjacency = model.get_adjacency("erythroid").to_numpy()
    assert (np.abs(jacobians) <= np.abs(adjacency) + 1e-6).all()
    np.testing.assert_allclose(jacobians[:, :, 4], 0, atol=1e-6)
    assert (adjacency[:, 4] == 0).all()
    mean = jacobians.mean(0)
    clear_cut = np.abs(mean) > 0.1 * np.abs(mean).max()
    assert min((mean < 0)[clear_cut].sum(), (mean > 0)[clear_cut].sum()) > 10
    np.testing.assert_array_equal(np.sign(adjacency)[clear_cut], np.sign(mean)[clear_cut])


def test_a_closed_unit_gate_switches_a_regulator_off(adata, fit):
    model = fit(adata, regularizer=sn.regularizers.L0(gates="unit"), train={"key_added": None})
    with torch.no_grad():
        for logits in model.module.field.gate_logits:
            logits.fill_(10.0)
        model.module.field.gate_logits[0][:, :, 3] = -10.0
    adjacency = model.get_adjacency()
    assert (adjacency["gene3"] == 0).all()
    assert (adjacency.drop(columns="gene3") != 0).all().all()
    assert model.get_sparsity()["feature"] == pytest.approx(1 / 8)


@pytest.mark.parametrize("method", ["get_adjacency", "get_network", "get_sparsity"])
def test_unknown_lineage_or_replicate(fitted, method):
    with pytest.raises(ValueError, match=r"`lineage` to be one of \['erythroid', 'myeloid'\], found 'lymphoid'"):
        getattr(fitted, method)(lineage="lymphoid")
    for replicate in (1, -1):
        with pytest.raises(ValueError, match=rf"`replicate` to be in \[0, 0\], found {replicate}"):
            getattr(fitted, method)(replicate=replicate)


# Edges


def test_edges_are_the_entries_that_are_not_zero(model):
    connect(model, "gene2", "gene5", -3.0)
    connect(model, "gene1", "gene6", 1.0, unit=1)
    connect(model, "gene7", "gene7", 2.0, unit=2)
    network = model.get_network("erythroid")
    assert list(network.columns) == ["source", "target", "weight"]
    assert network[["source", "target"]].to_numpy().tolist() == [
        ["gene2", "gene5"],
        ["gene7", "gene7"],
        ["gene1", "gene6"],
    ]
    assert list(network.index) == [0, 1, 2]
    np.testing.assert_allclose(network["weight"] * float(model.module.time_unit), [-3.0, 2.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("lineage", [None, "myeloid"])
def test_edges_of_a_fit(fitted, lineage):
    adjacency, network = fitted.get_adjacency(lineage), fitted.get_network(lineage)
    assert len(network) == (adjacency.to_numpy() != 0).sum()
    for row in network.itertuples():
        assert row.weight == adjacency.loc[row.target, row.source] != 0
    assert not network.duplicated(["source", "target"]).any()
    assert network["weight"].abs().is_monotonic_decreasing


def test_no_edges(model):
    network = model.get_network()
    assert network.shape == (0, 3)
    assert list(network.columns) == ["source", "target", "weight"]
    assert model.get_sparsity()["feature"] == 1.0


# Frequency


@pytest.fixture(scope="module")
def seeded(make_adata, fit) -> sn.SparseNODE:
    """Two strengths × three seeds, one field per lineage, three quarters of the weights zero. Not to be changed."""
    model = fit(make_adata(), regularizer=sn.regularizers.CNODE([0.01, 0.1]), n_seeds=3, train={"max_epochs": 1})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.module.field.weights:
            weight *= torch.rand(weight.shape, generator=generator) < 0.25
    return model


@pytest.mark.parametrize("lineage", [None, "myeloid"])
@pytest.mark.parametrize("replicate", [None, 1, 4])
def test_frequency_is_the_share_of_seeds_of_that_strength(seeded, lineage, replicate):
    first = 3 * ((seeded.selected_ if replicate is None else replicate) // 3)
    expected = np.zeros((8, 8))
    for r in range(first, first + 3):
        matrices = [seeded.get_adjacency(name, replicate=r) for name in ([lineage] if lineage else seeded.lineages)]
        expected += np.any([m != 0 for m in matrices], axis=0) / 3
    found = seeded.get_edge_frequency(lineage, replicate)
    np.testing.assert_allclose(found, expected)
    assert (found.index.name, found.columns.name) == ("target", "regulator")
    assert set(np.round(3 * expected.ravel())) == {0.0, 1.0, 2.0, 3.0}
    network = seeded.get_network(lineage, replicate)
    assert list(network.columns) == ["source", "target", "weight", "frequency"]
    assert [found.loc[row.target, row.source] for row in network.itertuples()] == network["frequency"].tolist()
    assert (network["frequency"] >= 1 / 3).all()


def test_frequency_is_written_in_the_order_of_the_genes_and_removed_with_the_seeds(seeded, fit):
    other = seeded.adata[:, ::-1].copy()
    seeded.write_results(other)
    expected = seeded.get_edge_frequency().loc[other.var_names, other.var_names]
    np.testing.assert_allclose(other.varp["sparsenode_frequency"].toarray(), expected, rtol=1e-6)
    fit(other)
    assert "sparsenode_frequency" not in other.varp


# Sparsity


def test_sparsity_by_hand(model):
    connect(model, "gene2", "gene5", 3.0, network=0)
    shares = model.get_sparsity(regulators=["gene0", "gene1", "unknown"])
    assert list(shares.index) == ["feature", "weight", "regulator", "spurious"]
    assert shares["regulator"] == pytest.approx(1 - 1 / 16)
    n_weights = 2 * (8 * 8 + 8 * 8 + 8 * 8)
    assert shares["feature"] == pytest.approx(1 - 1 / 128)
    assert shares["weight"] == pytest.approx(1 - 3 / n_weights)
    assert shares["spurious"] == pytest.approx(1 - 1 / (2 * 8 * 6))
    own = model.get_sparsity(regulators=["gene2"], lineage="erythroid")
    assert own["feature"] == pytest.approx(1 - 1 / 64)
    assert own["weight"] == pytest.approx(1 - 3 / (n_weights / 2))
    assert own["spurious"] == 1.0
    assert model.get_sparsity(lineage="myeloid")["feature"] == 1.0


@pytest.mark.parametrize("quantile", [None, 0.3])
@pytest.mark.parametrize("replicate", [0, 1])
def test_sparsity_against_brute_force(fitted_donors, quantile, replicate):
    model = fitted_donors
    matrix = brute_force(model, replicate)
    tolerance = 0.0 if quantile is None else float(np.quantile(matrix, quantile))
    weights = [w[replicate].detach().numpy() for w in model.module.field.effective_weights().weights]
    regulators = ["gene1", "gene4"]
    got = model.get_sparsity(regulators, tolerance=tolerance, replicate=replicate)
    assert got["feature"] == pytest.approx((matrix <= tolerance).mean())
    assert got["weight"] == pytest.approx(sum((w == 0).sum() for w in weights) / sum(w.size for w in weights))
    assert got["spurious"] == pytest.approx((np.delete(matrix, [1, 4], axis=1) <= tolerance).mean())
    if quantile is not None:
        assert got["feature"] == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("objective", ["trajectory", "collocation"])
def test_effects_are_jacobians_in_standard_deviations(make_adata, fit, objective, tmp_path):
    adata = make_adata()
    adata.X *= np.geomspace(0.2, 5.0, 8, dtype=np.float32)
    model = fit(adata, objective=objective)
    effect, jacobian = (model.get_adjacency(weights=weights).to_numpy() for weights in ("effect", "jacobian"))
    deviation = adata.X[model.train_indices].std(0)
    np.testing.assert_allclose(effect, jacobian * deviation / deviation[:, None], rtol=1e-4)
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=adata)
    np.testing.assert_array_equal(loaded.get_adjacency(weights="effect"), effect)


@pytest.mark.filterwarnings("ignore:.*do not vary between cells")
def test_effects_on_what_does_not_vary_are_finite(adata, fit):
    adata.X[:, 2] = 0.3
    model = fit(adata)
    effect, jacobian = (model.get_adjacency(weights=weights).to_numpy() for weights in ("effect", "jacobian"))
    np.testing.assert_allclose(effect[2], jacobian[2] * adata.X[model.train_indices].std(0), rtol=1e-4)


def test_sparsity_with_regulators_only(fitted):
    assert np.isnan(fitted.get_sparsity(regulators=fitted.genes)["spurious"])


def test_sparsity_with_regulators_as_text(fitted):
    with pytest.raises(TypeError, match="list of names of genes, found 'gene1'"):
        fitted.get_sparsity(regulators="gene1")


def test_sparsity_without_any_known_regulator(fitted):
    with pytest.raises(ValueError, match=r"none of 2 names is among its 8 genes.*gene0.*SOX2") as caught:
        fitted.get_sparsity(regulators=["SOX2", "PAX6"])
    assert "`regulators`" in str(caught.value)


def test_a_strong_penalty_gives_exact_zeros(make_adata, fit):
    """Of two strengths in one fit, the stronger one has the sparser network."""
    regularizer = sn.regularizers.CNODE([1e-4, 10.0])
    model = fit(make_adata(), regularizer=regularizer, train={"max_epochs": 10})
    weak, strong = (model.get_sparsity(replicate=r)["feature"] for r in (0, 1))
    assert weak < 0.5 < strong


@pytest.mark.parametrize("lineage", [0, 1])
def test_the_mean_jacobian_is_that_of_the_whole_trajectory(fitted, numpy_field, lineage):
    """By finite differences at a hundred and one places of it; a few places would do as well for a straight one only."""
    name = fitted.lineages[lineage]
    row = fitted.trajectories[fitted.trajectories["lineage"] == name].iloc[0]
    points = fitted.predict(times=np.linspace(row["start"], row["end"], 101))[lineage]
    field, step, n = numpy_field(fitted, lineage), 1e-4, len(fitted.genes)
    slopes = [(field(points + step * unit) - field(points - step * unit)) / (2 * step) for unit in np.eye(n)]
    expected = np.stack(slopes, -1).mean(0)  # targets × regulators
    found = fitted.get_adjacency(name, weights="jacobian").to_numpy()
    apart = ~np.eye(n, dtype=bool)  # the decay is no part of it
    np.testing.assert_allclose(found[apart], expected[apart], atol=2e-4)


def test_weights_that_are_passed_as_signed(fitted):
    """The second argument is not ``weights``, and any text would count as true."""
    with pytest.raises(TypeError, match="`signed` to be True or False, found 'jacobian'"):
        fitted.get_adjacency("myeloid", "jacobian")


@pytest.mark.parametrize("tolerance", [-1e-5, np.nan, "1e-5", None])
def test_tolerances_that_are_none(fitted, tolerance):
    with pytest.raises(ValueError, match=f"`tolerance` to be non-negative and finite, found {tolerance!r}"):
        fitted.get_sparsity(tolerance=tolerance)
