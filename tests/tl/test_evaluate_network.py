"""Scores of networks, against scikit-learn, counting by hand and BEELINE's own evaluation."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

import sparsenode as sn


def table(*edges: tuple) -> pd.DataFrame:
    return pd.DataFrame(edges, columns=["source", "target", "weight"])


# Genes a, b, c: six candidates, two of them true.
REFERENCE = table(("a", "b", 1.0), ("b", "c", -1.0))


def test_by_hand():
    """Ranking: a→b (true), c→a, b→c (true), a→c; the other two candidates are not predicted."""
    network = table(("c", "a", -0.8), ("a", "b", 0.9), ("a", "c", 0.1), ("b", "c", 0.5))
    scores = sn.tl.evaluate_network(network, REFERENCE)
    # Pairs of a true and a false candidate in the right order: a→b before all four, b→c before three.
    assert scores["auroc"] == pytest.approx(7 / 8)
    # Points (recall, precision) from the top: (0, 1), (1/2, 1), (1/2, 1/2), (1, 2/3).
    assert scores["auprc"] == pytest.approx(0.5 * 1 + 0.5 * (1 / 2 + 2 / 3) / 2)
    assert scores["auprc_ratio"] == pytest.approx(scores["auprc"] / (2 / 6))
    # Two true edges, one of them in the top two.
    assert scores["epr"] == pytest.approx((1 / 2) / (2 / 6))
    # a→b has the right sign, b→c should be negative.
    assert scores["sign_accuracy"] == pytest.approx(1 / 2)
    assert (scores["n_true"], scores["n_candidates"]) == (2, 6)
    # True candidates at ranks 1 and 3.
    assert scores["average_precision_ratio"] == pytest.approx(0.5 * (1 + 2 / 3) / (2 / 6))
    # Both true edges are among four predictions; without regulators no source is spurious.
    assert (scores["precision"], scores["recall"]) == (2 / 4, 1.0)
    assert np.isnan(scores["spurious_share"])
    ratios, sets = ["auprc_ratio", "average_precision_ratio", "epr"], ["precision", "recall", "spurious_share"]
    assert list(scores.index) == ["auroc", "auprc", *ratios, "sign_accuracy", *sets, "n_true", "n_candidates"]


def test_perfect_and_reversed():
    perfect = sn.tl.evaluate_network(REFERENCE, REFERENCE)
    assert perfect["auroc"] == perfect["auprc"] == perfect["sign_accuracy"] == 1.0
    assert perfect["auprc_ratio"] == perfect["epr"] == pytest.approx(3.0)
    wrong = table(*((s, t, 1.0) for s, t in itertools.permutations("abc", 2) if (s, t) not in {("a", "b"), ("b", "c")}))
    scores = sn.tl.evaluate_network(wrong, REFERENCE)
    assert scores["auroc"] == scores["epr"] == 0.0
    assert np.isnan(scores["sign_accuracy"])


@pytest.mark.parametrize(
    "network",
    [table(), table(("a", "b", 0.0), ("c", "a", 0.0)), table(("a", "x", 1.0))],
    ids=["no edges", "zeros", "no candidate"],
)
def test_a_network_that_predicts_nothing_scores_as_chance(network):
    scores = sn.tl.evaluate_network(network, REFERENCE)
    assert scores["auroc"] == 0.5
    assert scores["auprc"] == pytest.approx(2 / 6)
    assert scores["auprc_ratio"] == scores["average_precision_ratio"] == pytest.approx(1.0)
    assert scores["epr"] == scores["recall"] == 0.0
    assert scores[["sign_accuracy", "precision"]].isna().all()


def test_average_precision_does_not_flatter_a_short_list():
    """Candidates without a prediction count as in random order, which the line of the trapezoid rule does not."""
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(30)]
    pairs = list(itertools.permutations(genes, 2))
    true = rng.permutation(len(pairs))[:90]
    # Of 10 predictions one is true: a list as good as chance.
    listed = [true[0], *np.setdiff1d(np.arange(len(pairs)), true)[:9]]
    reference, network = table(*((*pairs[i], 1.0) for i in true)), table(*((*pairs[i], 1.0) for i in listed))
    scores = sn.tl.evaluate_network(network, reference)
    assert scores["average_precision_ratio"] == pytest.approx(1.0, abs=0.05)
    short = sn.tl.evaluate_network(table((*pairs[true[0]], 1.0)), reference)
    assert short["auprc_ratio"] > 5
    assert short["average_precision_ratio"] < 1.2


def test_magnitude_ranks_and_sign_does_not():
    network = table(("a", "b", 0.9), ("b", "c", 0.5), ("c", "a", 0.1))
    flipped = network.assign(weight=-network["weight"])
    ranked = ["auroc", "auprc", "epr"]
    one, other = (sn.tl.evaluate_network(n, REFERENCE) for n in (network, flipped))
    pd.testing.assert_series_equal(one[ranked], other[ranked])
    assert (one["sign_accuracy"], other["sign_accuracy"]) == (0.5, 0.5)


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 1.0))
@settings(max_examples=30, deadline=None)
def test_precision_and_recall_are_those_of_scikit_learn(seed, share):
    rng = np.random.default_rng(seed)
    pairs = list(itertools.permutations("abcdef", 2))
    true = rng.permutation(len(pairs)) < 9
    weights = rng.normal(size=len(pairs)) * (rng.random(len(pairs)) < share)
    reference = table(*((*pairs[i], 1.0) for i in np.flatnonzero(true)))
    # All genes are in the reference by their self edges, which are no candidates.
    reference = pd.concat([reference, table(*((gene, gene, 1.0) for gene in "abcdef"))])
    network = table(*((*pair, weight) for pair, weight in zip(pairs, weights, strict=True)))
    regulators = list("abcd")
    allowed = np.array([source in regulators for source, _ in pairs])
    for chosen, among in ((None, np.ones(len(pairs), dtype=bool)), (regulators, allowed)):
        if not true[among].any():
            continue
        scores = sn.tl.evaluate_network(network, reference, chosen)
        found = weights[among] != 0
        assert scores["recall"] == pytest.approx(recall_score(true[among], found))
        expected = precision_score(true[among], found, zero_division=np.nan)
        assert scores["precision"] == pytest.approx(expected, nan_ok=True)


def test_edges_from_genes_that_are_no_regulators_are_spurious():
    """Each edge counts once, self edges and weights of zero not at all, sources that the reference does not know do."""
    edges = [("a", "b", 0.9), ("b", "c", -0.5), ("c", "a", 0.2), ("x", "a", 0.1), ("c", "b", 0.0), ("c", "c", 1.0)]
    network = table(*edges, ("c", "a", -0.1))
    scores = sn.tl.evaluate_network(network, REFERENCE, ["a", "b"])
    assert scores["spurious_share"] == 2 / 4
    assert scores["precision"] == scores["recall"] == 1.0
    only_zeros = sn.tl.evaluate_network(network.assign(weight=0.0), REFERENCE, ["a", "b"])
    assert np.isnan(only_zeros["spurious_share"])


def test_ties_with_the_kth_edge_count():
    """Three predictions share the second place: precision is taken over all four."""
    network = table(("a", "b", 0.9), ("b", "c", 0.5), ("c", "a", 0.5), ("a", "c", -0.5))
    scores = sn.tl.evaluate_network(network, REFERENCE)
    assert scores["epr"] == pytest.approx((2 / 4) / (2 / 6))
    # And their order in the table does not matter.
    pd.testing.assert_series_equal(scores, sn.tl.evaluate_network(network[::-1], REFERENCE))


def test_fewer_predictions_than_true_edges():
    """Candidates without a prediction do not enter the early precision."""
    assert sn.tl.evaluate_network(table(("a", "b", 0.1)), REFERENCE)["epr"] == pytest.approx(1 / (2 / 6))


def test_repeated_predictions_count_once_with_their_largest_magnitude():
    network = table(("a", "b", 0.2), ("c", "a", 0.5), ("b", "c", -0.4), ("a", "b", 0.9), ("a", "b", -0.1))
    once = table(("a", "b", 0.9), ("c", "a", 0.5), ("b", "c", -0.4))
    pd.testing.assert_series_equal(sn.tl.evaluate_network(network, REFERENCE), sn.tl.evaluate_network(once, REFERENCE))


def test_self_edges_and_repeated_rows_of_the_reference_are_left_out():
    network = table(("a", "b", 0.9), ("a", "a", 5.0), ("c", "a", 0.5))
    reference = pd.concat([REFERENCE, REFERENCE, table(("a", "a", 1.0))])
    scores = sn.tl.evaluate_network(network, reference)
    pd.testing.assert_series_equal(scores, sn.tl.evaluate_network(network, REFERENCE))
    assert (scores["n_true"], scores["n_candidates"]) == (2, 6)


def test_a_gene_that_regulates_only_itself_is_a_gene_of_the_reference():
    """Against pairs and ranks counted one by one: genes of all rows, self edges or not, as in BEELINE."""
    reference = table(("A", "B", 1.0), ("C", "B", 1.0), ("E", "E", 1.0))
    candidates = list(itertools.permutations("ABCE", 2))
    rng = np.random.default_rng(0)
    weights = dict(zip(candidates, rng.permutation(len(candidates)) + 1.0, strict=True))
    true = {("A", "B"), ("C", "B")}
    wins = [weights[t] > weights[f] for t in true for f in candidates if f not in true]
    scores = sn.tl.evaluate_network(table(*((*pair, w) for pair, w in weights.items()), ("E", "E", 99.0)), reference)
    assert (scores["n_true"], scores["n_candidates"]) == (2, 12)
    assert scores["auroc"] == pytest.approx(np.mean(wins))
    top = sorted(candidates, key=weights.get)[-2:]
    assert scores["epr"] == pytest.approx(np.mean([pair in true for pair in top]) * 12 / 2)


def random_network(n_genes: int, n_sources: int, n_edges: int, seed: int) -> pd.DataFrame:
    """Random weights of random pairs from the first genes to all."""
    rng = np.random.default_rng(seed)
    pairs = [(f"g{s}", f"g{t}") for s in range(n_sources) for t in range(n_genes) if s != t]
    chosen = rng.permutation(len(pairs))[:n_edges]
    return table(*((*pairs[i], rng.normal()) for i in chosen))


@pytest.mark.parametrize("n_edges", [150, 10**6], ids=["sparse", "all pairs"])
def test_a_network_of_regulators_is_not_to_be_scored_without_them(n_edges):
    """Random weights are no better than chance, but look so among pairs that they can never have."""
    reference, factors = random_network(100, 10, 300, seed=0), [f"g{i}" for i in range(10)]
    networks = [random_network(100, 10, n_edges, seed) for seed in range(1, 6)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_regulators = [sn.tl.evaluate_network(each, reference, factors) for each in networks]
    with pytest.warns(UserWarning, match=r"of 98 genes are targets in `network`.*`regulators`, pass the same"):
        without = [sn.tl.evaluate_network(each, reference) for each in networks]
    ratio = "average_precision_ratio"
    assert np.mean([scores[ratio] for scores in with_regulators]) == pytest.approx(1.0, abs=0.1)
    assert np.mean([scores[ratio] for scores in without]) > 1.5


@pytest.mark.parametrize(
    ("network", "reference"),
    [
        ((7, 4, 12), (7, 4, 10)),
        ((19, 5, 60), (19, 5, 40)),
        ((60, 60, 40), (60, 60, 60)),
        ((60, 60, 10**6), (60, 6, 100)),
        ((60, 60, 200), (60, 6, 100)),
        ((60, 6, 200), (60, 60, 200)),
    ],
    ids=["7 genes", "19 genes", "few edges", "all pairs", "sparse", "regularised away"],
)
def test_genes_without_outgoing_edges_need_not_be_targets_only(network, reference):
    """Few genes or edges leave some out by chance; wrong zeros, of sources in the reference, are no free negatives."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sn.tl.evaluate_network(random_network(*network, seed=1), random_network(*reference, seed=0))


def test_zeros_and_self_edges_make_no_source():
    reference, network = random_network(100, 10, 300, seed=0), random_network(100, 10, 500, seed=1)
    genes = [f"g{i}" for i in range(100)]
    more = table(*((g, g, 1.0) for g in genes), *((g, genes[0], 0.0) for g in genes[1:]))
    with pytest.warns(UserWarning, match="pass the same"):
        sn.tl.evaluate_network(pd.concat([network, more]), reference)


def test_genes_outside_the_reference_are_no_candidates():
    network = table(("a", "b", 0.9), ("x", "b", 5.0), ("a", "x", 7.0))
    pd.testing.assert_series_equal(
        sn.tl.evaluate_network(network, REFERENCE), sn.tl.evaluate_network(network[:1], REFERENCE)
    )


def test_a_reference_of_other_genes_is_told():
    """Pairs of genes that the model never saw are negatives for free: a random network looks good."""
    chain = [(f"g{i}", f"g{i + 1}", 1.0) for i in range(8)]
    network, message = table(*chain[:3]), r"5 of the 9 genes of `reference` are not in `network`, such as \['g4'"
    with pytest.warns(UserWarning, match=message):
        sn.tl.evaluate_network(network, table(*chain))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sn.tl.evaluate_network(network, table(*chain[:7]))  # 4 of 8 genes: half of them are not most


def test_regulators_limit_the_sources():
    network = table(("a", "b", 0.9), ("c", "a", 5.0), ("b", "a", 0.7))
    scores = sn.tl.evaluate_network(network, REFERENCE, regulators=["a", "b", "x"])
    assert (scores["n_true"], scores["n_candidates"]) == (2, 4)
    assert scores["epr"] == pytest.approx((1 / 2) / (2 / 4))


def test_targets_limit_the_ends():
    """The reference knows nothing of what regulates a: candidates are a→b, a→c, b→c and c→b."""
    network = table(("a", "c", 1.0), ("a", "b", 0.5), ("c", "a", 2.0))
    scores = sn.tl.evaluate_network(network, REFERENCE, targets=REFERENCE["target"].unique())
    assert (scores["n_true"], scores["n_candidates"]) == (2, 4)
    assert scores["precision"] == 1 / 2
    both = sn.tl.evaluate_network(network, REFERENCE, ["a", "b"], targets=iter(["b", "c"]))
    assert (both["n_true"], both["n_candidates"]) == (2, 3)


def test_pairs_that_are_excluded_are_no_free_negatives():
    """As the edges of a prior: their rows are still in the tables, but nothing is gained or lost by them."""
    network = table(("a", "b", 0.9), ("a", "c", 0.5), ("b", "c", 0.4))
    scores = sn.tl.evaluate_network(network, REFERENCE, exclude=table(("a", "b", 1.0), ("x", "a", 1.0)))
    assert (scores["n_true"], scores["n_candidates"]) == (1, 5)
    assert scores["auroc"] == pytest.approx(3 / 4)
    assert scores["sign_accuracy"] == 0.0
    # All pairs alike are no better than chance; with the rows left out of both tables they would be.
    alike = table(*((s, t, 1.0) for s, t in itertools.permutations("abc", 2)))
    chance = sn.tl.evaluate_network(alike, REFERENCE, exclude=REFERENCE[:1])
    assert chance["average_precision_ratio"] == pytest.approx(1.0)
    shorter, genes = alike[1:], table(("b", "c", -1.0), ("a", "a", 1.0))
    assert tuple(alike.iloc[0, :2]) == ("a", "b")
    assert sn.tl.evaluate_network(shorter, genes)["average_precision_ratio"] == pytest.approx(6 / 5)


def test_unsigned_reference():
    scores = sn.tl.evaluate_network(table(("a", "b", 0.9)), REFERENCE[["source", "target"]])
    assert np.isnan(scores["sign_accuracy"])
    assert scores["auprc_ratio"] > 1


def test_sign_accuracy_counts_predicted_true_edges_only():
    reference = table(("a", "b", 1.0), ("b", "c", -1.0), ("c", "a", 1.0), ("a", "c", 0.0))
    network = table(("a", "b", 0.2), ("b", "c", 0.3), ("b", "a", -1.0), ("c", "b", 1.0), ("a", "c", 1.0))
    assert sn.tl.evaluate_network(network, reference)["sign_accuracy"] == 0.5


def test_inputs_are_not_changed():
    network, reference = table(("a", "b", 0.2), ("b", "c", 0.3)), REFERENCE.copy()
    before = network.copy()
    sn.tl.evaluate_network(network, reference)
    pd.testing.assert_frame_equal(network, before)
    pd.testing.assert_frame_equal(reference, REFERENCE)


def test_categorical_columns():
    network = table(("a", "b", 0.9), ("c", "a", 0.5)).astype({"source": "category", "target": "category"})
    reference = REFERENCE.astype({"source": "category", "target": "category"})
    pd.testing.assert_series_equal(
        sn.tl.evaluate_network(network, reference),
        sn.tl.evaluate_network(network.astype({"source": str, "target": str}), REFERENCE),
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_against_scikit_learn(data):
    genes = [f"g{i}" for i in range(data.draw(st.integers(3, 6), "genes"))]
    pairs = list(itertools.permutations(genes, 2))
    names = st.sampled_from([*pairs, *((gene, gene) for gene in genes)])
    true = data.draw(st.lists(names, min_size=1, max_size=len(pairs) - 1, unique=True), "true")
    weights = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0])
    predicted = data.draw(st.dictionaries(names, weights), "predicted")
    reference = table(*((s, t, 1.0) for s, t in true))
    known = sorted({gene for pair in true for gene in pair})
    some = st.none() | st.lists(st.sampled_from(genes), min_size=1, unique=True)
    regulators, targets = data.draw(some, "regulators"), data.draw(some, "targets")
    excluded = data.draw(st.lists(names, max_size=3), "excluded")
    arguments = {"regulators": regulators, "targets": targets, "exclude": table(*((s, t, 1.0) for s, t in excluded))}
    candidates = [
        (source, target)
        for source, target in itertools.permutations(known, 2)
        if (regulators is None or source in regulators) and (targets is None or target in targets)
    ]
    candidates = [pair for pair in candidates if pair not in excluded]
    label = np.array([pair in true for pair in candidates], dtype=bool)
    score = np.abs([predicted.get(pair, 0.0) for pair in candidates])
    network = table(*((s, t, w) for (s, t), w in predicted.items()))
    if label.all() or not label.any() or (predicted and not {gene for pair in predicted for gene in pair} & set(known)):
        with pytest.raises(ValueError, match="Expected"):
            sn.tl.evaluate_network(network, reference, **arguments)
        return
    scores = sn.tl.evaluate_network(network, reference, **arguments)
    precision, recall, _ = precision_recall_curve(label, score)
    area = auc(recall, precision) if score.any() else label.mean()
    assert (scores["n_true"], scores["n_candidates"]) == (label.sum(), len(label))
    assert scores["auroc"] == pytest.approx(roc_auc_score(label, score))
    assert scores["auprc"] == pytest.approx(area)
    assert scores["auprc_ratio"] == pytest.approx(area / label.mean())
    average_precision = average_precision_score(label, score)
    assert scores["average_precision_ratio"] == pytest.approx(average_precision / label.mean())
    # BEELINE: all edges that score at least as much as the k-th, if that is not zero, otherwise all non-zero ones.
    ranked = np.sort(score)[::-1]
    threshold = max(ranked[label.sum() - 1], np.nextafter(0, 1))
    top = score >= threshold
    expected = label[top].mean() / label.mean() if top.any() else 0.0
    assert scores["epr"] == pytest.approx(expected)


# Errors


@pytest.mark.parametrize(
    ("network", "reference", "error", "message"),
    [
        (REFERENCE.drop(columns="weight"), REFERENCE, KeyError, r"in `network`, \['weight'\] not found"),
        (REFERENCE.rename(columns={"source": "Gene1"}), REFERENCE, KeyError, r"in `network`, \['source'\] not found"),
        (REFERENCE, REFERENCE.drop(columns="target"), KeyError, r"in `reference`, \['target'\] not found"),
        (table(("a", "b", np.nan)), REFERENCE, ValueError, "finite weights in `network`"),
        (table(("a", "b", np.inf)), REFERENCE, ValueError, "finite weights in `network`"),
        (table(("A", "B", 1.0)), REFERENCE, ValueError, r"none of 2 .*its 3 genes.*\['a', 'b', 'c'\].*\['A', 'B'\]"),
        (REFERENCE, table(), ValueError, "0 candidate edges"),
        (REFERENCE, table(("a", "a", 1.0)), ValueError, "0 candidate edges"),
        (REFERENCE, table(("a", "b", 1.0), ("b", "a", 1.0)), ValueError, "found all 2 in it"),
    ],
    ids=["no weight", "other names", "no target", "nan", "inf", "other case", "empty", "self only", "all true"],
)
def test_errors(network, reference, error, message):
    with pytest.raises(error, match=message):
        sn.tl.evaluate_network(network, reference)


def test_unknown_regulators():
    with pytest.raises(ValueError, match="candidate edges.*found none.*check their names"):
        sn.tl.evaluate_network(REFERENCE, REFERENCE, regulators=["x"])


def test_regulators_without_true_edges():
    with pytest.raises(ValueError, match="of 2 candidate edges.*found none"):
        sn.tl.evaluate_network(REFERENCE, REFERENCE, regulators=["c"])


@pytest.mark.data
@pytest.mark.parametrize("seed", ["0", "1"])
@pytest.mark.parametrize("dataset", ["VSC", "dyn-LI", "mCAD"])
def test_published_scores(data_dir, dataset, seed):
    """PPCOR is the matrix of partial rank correlations: refitted here, it must score as published, ties included."""
    folder = data_dir / "beeline" / dataset / seed
    expression = pd.read_csv(folder / "ExpressionData.csv.gz", index_col=0)
    reference = pd.read_csv(folder / "refNetwork.csv").rename(columns={"Gene1": "source", "Gene2": "target"})
    inverse = np.linalg.inv(np.corrcoef(stats.rankdata(expression, axis=1)))
    partial = -inverse / np.sqrt(np.outer(np.diag(inverse), np.diag(inverse)))
    partial = ((partial + partial.T) / 2).round(9)  # ties are exact: an edge and its reverse score the same
    freedom = expression.shape[1] - expression.shape[0]
    t = partial * np.sqrt(freedom / np.clip(1 - partial**2, 1e-12, None))
    partial[2 * stats.t.sf(np.abs(t), freedom) > 0.01] = 0.0
    network = pd.DataFrame(partial, expression.index, expression.index).rename_axis("source").reset_index()
    network = network.melt("source", var_name="target", value_name="weight")
    scores = sn.tl.evaluate_network(network, reference[["source", "target"]])
    published = pd.read_csv(data_dir / "beeline" / "published_methods.csv").astype({"seed": str})
    published = published.set_index(["dataset", "seed", "method"]).loc[(dataset, seed, "PPCOR")]
    np.testing.assert_allclose(scores[published.index], published, atol=6e-5)


def test_a_reference_of_all_candidates_tells_nothing_apart():
    every = table(("a", "b", 1.0), ("b", "a", 1.0))
    with pytest.raises(ValueError, match="not in `reference`, found all 2"):
        sn.tl.evaluate_network(every, every)
    with pytest.raises(ValueError, match=r"found none. Candidates are pairs of two of its 2 genes"):
        sn.tl.evaluate_network(every, every.iloc[:1], regulators=["other"])


@pytest.mark.parametrize(
    ("column", "values", "error", "message"),
    [
        ("weight", ["+", "-"], TypeError, r"numbers in the column `weight` of `{}`, found .*'\+'.*1.0 and -1.0"),
        ("weight", ["1", "2"], TypeError, "numbers in the column `weight` of `{}`"),
        ("weight", [True, False], TypeError, "numbers in the column `weight` of `{}`, found bool"),
        ("source", ["a", None], ValueError, "every row of the column 'source' of `{}`, found none in row"),
        ("target", [np.nan, "c"], ValueError, "every row of the column 'target' of `{}`, found none in row"),
    ],
)
@pytest.mark.parametrize("name", ["network", "reference"])
def test_values_that_are_no_names_and_numbers(name, column, values, error, message):
    tables = {key: table(("a", "b", 1.0), ("a", "c", -1.0)) for key in ("network", "reference")}
    tables[name] = tables[name].assign(**{column: pd.Series(values, dtype=None if column == "weight" else object)})
    with pytest.raises(error, match=message.format(name)):
        sn.tl.evaluate_network(**tables)


@pytest.mark.parametrize("name", ["regulators", "targets"])
def test_regulators_and_targets_are_no_string(name):
    edges = table(("a", "b", 1.0), ("a", "c", -1.0))
    with pytest.raises(TypeError, match=f"`{name}` to be a list of names of genes, found 'a'"):
        sn.tl.evaluate_network(edges, edges, **{name: "a"})


def test_excluded_pairs_are_a_table_of_both_ends():
    with pytest.raises(TypeError, match="`exclude`"):
        sn.tl.evaluate_network(REFERENCE, REFERENCE, exclude=["a"])
    with pytest.raises(KeyError, match="`exclude`"):
        sn.tl.evaluate_network(REFERENCE, REFERENCE, exclude=REFERENCE[["source"]])
    with pytest.raises(ValueError, match="without those of `exclude`"):
        sn.tl.evaluate_network(REFERENCE, REFERENCE, exclude=REFERENCE)


def test_edges_of_both_signs_and_of_none_have_no_known_sign():
    """Whichever row comes first."""
    network = table(("a", "b", 1.0), ("a", "c", 1.0), ("b", "c", 1.0), ("c", "a", 1.0))
    rows = [("a", "b", 1.0), ("a", "b", 1.0), ("a", "c", 1.0), ("a", "c", -1.0), ("b", "c", -1.0), ("c", "a", np.nan)]
    for reference in (table(*rows), table(*rows[::-1])):
        scores = sn.tl.evaluate_network(network, reference)
        assert scores["sign_accuracy"] == 0.5  # of a to b and b to c
        assert scores["n_true"] == 4


@pytest.mark.parametrize("unknown", [0.0, np.nan])
def test_a_row_without_a_sign_takes_none_from_other_rows_of_its_edge(unknown):
    """0 and NaN both say that a sign is not known, so the one that is known stands."""
    network = table(("a", "b", 1.0), ("b", "c", 1.0), ("c", "a", 1.0))
    rows = [("a", "b", 1.0), ("a", "b", unknown), ("b", "c", -1.0), ("b", "c", unknown), ("c", "a", unknown)]
    for reference in (table(*rows), table(*rows[::-1])):
        assert sn.tl.evaluate_network(network, reference)["sign_accuracy"] == 0.5


def test_names_that_are_numbers():
    reference = pd.DataFrame({"source": [0, 1, 2], "target": [1, 2, 0]})
    network = pd.DataFrame({"source": [0, 0, 1], "target": [1, 2, 2], "weight": [3.0, 2.0, 1.0]})
    expected = sn.tl.evaluate_network(network.astype({"source": str, "target": str}), reference.astype(str), ["0", "1"])
    pd.testing.assert_series_equal(sn.tl.evaluate_network(network, reference, regulators=[0, 1]), expected)


def test_what_is_no_table():
    table = pd.DataFrame({"source": ["a"], "target": ["b"], "weight": [1.0]})
    for name, arguments in (("network", (None, table)), ("reference", (table, "reference.csv"))):
        with pytest.raises(TypeError, match=f"Expected `{name}` to be a data frame, found"):
            sn.tl.evaluate_network(*arguments)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_repeated_predictions_a_repression_may_be_the_largest(reverse):
    reference = pd.DataFrame({"source": ["a", "b"], "target": ["b", "c"], "weight": [-1.0, 1.0]})
    rows = [("a", "b", 0.5), ("a", "b", -3.0), ("b", "c", 2.0), ("c", "a", 1.0), ("a", "c", 0.7)]
    network = pd.DataFrame(rows[::-1] if reverse else rows, columns=["source", "target", "weight"])
    found = sn.tl.evaluate_network(network, reference)
    assert found["auroc"] == found["sign_accuracy"] == 1.0
