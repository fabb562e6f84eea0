"""The table at the top: every question with its goal, what was measured, and how often the goal is reached."""

from __future__ import annotations

import pandas as pd
from _forecast_tables import donor_models
from _network_tables import NETWORK_METHODS, rests
from _tables import Rows, results, signed

_SIGNS = 0.9  # share of them that is right, at least
_SECONDS = {"beeline": 5, "bone_marrow": 20, "erythropoiesis": 120}
_GIGABYTES = 6
_EDGES_KEPT = 90  # of 100, at least
_PRECISION = 0.95
_TIMES_FASTER = {1: 25, 16: 70}


def at_a_glance() -> Rows:
    """Goals, what was measured, and how often it reaches them."""
    parts = (_forecasts, _motion, _interventions, _beeline, _simulated, _real, _cost, _equations, _chromatin, _speed)
    return [["question", "goal", "measured", "reached in"], *(row for part in parts for row in part())]


def _row(question: str, goal: str, values: pd.Series, reached: pd.Series, digits: int = 2, unit: str = "") -> list[str]:
    """Range of the values, and how many of them reach the goal, bold where not all do."""
    text = [f"{value:.{digits}f}" for value in (values.min(), values.max())]
    count = f"{int(reached.sum())} of {len(reached)}"
    return [question, goal, f"{' to '.join(dict.fromkeys(text))}{unit}", count if reached.all() else f"**{count}**"]


def _skill(question: str, values: pd.Series) -> list[str]:
    """A skill that should be positive."""
    measured = f"{signed(values.mean())} in the mean, {signed(values.min())} to {signed(values.max())}"
    question, goal, _, count = _row(question, "above 0", values, values > 0)
    return [question, goal, measured, count]


def _forecasts() -> Rows:
    rows = []
    for together, trained in ((False, "one"), (True, "two")):
        models = donor_models(together).query("method == 'both'")
        skill = models.groupby(["protocol", "trained", "predicted"])["skill"].median()
        for protocol, scale in (("paper", "scaled expression"), ("recommended", "log1p")):
            rows.append(_skill(f"Skill on another donor: default, {trained} trained on, {scale}", skill[protocol]))
    return rows


def _motion() -> Rows:
    folds = results("paper/results/motion.csv").query("part == 'folds' and seed == 'mean'")
    worse = folds[["extrapolation_skill", "unseen_skill"]].min(axis=1)
    backwards = results("paper/results/other_walks.csv").query("part == 'backwards' and seed == 'mean'")
    return [
        _skill("Skill on walks: extrapolation or an unseen trial, the worse", worse),
        _skill("Skill on the same walks backwards, extrapolation", backwards["extrapolation_skill"]),
        _skill("Skill on the same walks backwards, an unseen trial", backwards["unseen_skill"]),
    ]


def _interventions() -> Rows:
    table = results("results/interventions.csv").groupby(["network", "method"])[["skill", "sign_accuracy"]].median()
    skill, right = (table[score].unstack() for score in ("skill", "sign_accuracy"))
    static = skill[["ridge", "regression"]].max(axis=1).clip(lower=0.0)
    row = _skill("Knock-outs of simulated cells: skill", skill["both"])
    ahead = _row("", "", skill["both"], skill["both"] > static)[-1]
    return [
        [row[0], "above no effect and both regressions", row[2], ahead],
        _signs("Knock-outs of simulated cells: signs of large effects", right["both"]),
    ]


def _beeline() -> Rows:
    ours = results("results/beeline.csv").query("method == 'sparsenode'").groupby("network").median(numeric_only=True)
    published = results("results/beeline_best_published.csv").set_index("network").loc[ours.index]
    rows = []
    for score, name in (("auprc_ratio", "AUPRC"), ("epr", "early precision")):
        share = ours[score] / published[score]
        goal = "above the best of twelve published methods"
        rows.append(_row(f"BEELINE networks, {name}", goal, share, share > 1, unit=" times that"))
    return [*rows, _signs("BEELINE networks, signs", ours["sign_accuracy"])]


def _signs(question: str, share: pd.Series) -> list[str]:
    return _row(question, f"{_SIGNS} of them right", share, share.round(2) >= _SIGNS)


def _simulated() -> Rows:
    table = results("results/simulated_networks.csv").query("cells == cells.max()")
    middle = table.groupby(["network", "method"])[["auprc_ratio", "sign_accuracy"]].median()
    ratio = middle["auprc_ratio"].unstack()[list(NETWORK_METHODS)]
    share = ratio["sparsenode"] / ratio.drop(columns="sparsenode").max(axis=1)
    rows, at_rest = [], rests(ratio.index)
    for name, own in (("move on", share[~at_rest]), ("rest in some states", share[at_rest])):
        question = f"Simulated networks whose cells {name}, AUPRC"
        rows.append(_row(question, "not below any baseline", own, own >= 1, unit=" times the best"))
    return [*rows, _signs("Simulated networks, signs", middle["sign_accuracy"].xs("sparsenode", level="method"))]


def _real() -> Rows:
    keys = ["donor", "lineage", "method"]
    table = results("results/real_networks.csv").groupby(keys)["auprc_ratio"].median().unstack().round(2)
    share = table["sparsenode, lineage"] / table[["genie3", "pearson"]].max(axis=1)
    goal = "above GENIE3 and Pearson"
    return [_row("Networks of real lineages, AUPRC", goal, share, share > 1, unit=" times the better")]


def _cost() -> Rows:
    table = results("results/network_speed.csv").query("method == 'sparsenode'").set_index("dataset")
    limit = pd.Series(_SECONDS)
    kept = table["same_after_removal"].dropna()
    return [
        _row(
            "Time of a network: BEELINE, S1D2, erythropoiesis",
            " / ".join(f"{seconds} s" for seconds in _SECONDS.values()),
            table["seconds"],
            table["seconds"] < limit[table.index],
            digits=1,
            unit=" s",
        ),
        _row(
            "Peak memory, the same", f"below {_GIGABYTES} GB", table["peak_gb"], table["peak_gb"] < _GIGABYTES, 1, " GB"
        ),
        _row(
            "Edges of the 100 strongest that stay without 1 % of the cells, median of five",
            f"{_EDGES_KEPT}",
            kept,
            kept >= _EDGES_KEPT,
            digits=0,
        ),
    ]


def _equations() -> Rows:
    table = results("results/recovery_summary.csv").query("kind == 'linear' and noise == 0")
    share = table[table["method"].isin(["pathreg", "cnode"])]["support_exact"]
    return [_row("Linear equations without noise, zeros all right: PathReg, C-NODE", "all systems", share, share == 1)]


def _chromatin() -> Rows:
    precision = results("results/multiome.csv")["lineage_precision"]
    goal = f"precision of {_PRECISION}"
    return [_row("Reference networks from simulated multiomes", goal, precision, precision >= _PRECISION)]


def _speed() -> Rows:
    table = results("results/speed.csv").set_index("strengths")
    rows = []
    for strengths, goal in _TIMES_FASTER.items():
        times = table.loc[strengths, "times_faster_step"]
        question = f"A training step against the published loop, {strengths} replicate{'s' if strengths > 1 else ''}"
        rows.append(_row(question, f"{goal} times faster", times, times >= goal, digits=0, unit=" times"))
    return rows
