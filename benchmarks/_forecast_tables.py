"""Tables of forecasts: other donors, which objective, motion, and regularization paths."""

from __future__ import annotations

import pandas as pd
from _tables import DONORS, METHODS, NETWORKS, OBJECTIVES, PROTOCOLS, Rows, results, signed, spread

CURVES = {
    "training donor": "curve of the training donor",
    "moved by early cells": "moved by the difference of initial states",
    "moved by half of that": "moved by half of that difference",
    "moved by half of the first quarter": "moved by half of the difference of the first quarter of the cells",
    "moved by all cells": "moved by the difference of all cells",
    "own curve": "curve of the predicted donor, from its other cells",
}


def bone_marrow(protocol: str) -> Rows:
    """Errors and skills on three donors, with the published run and the best null model."""
    table = results("results/bone_marrow.csv").query("protocol == @protocol")
    middle = table.groupby(["method", "donor"]).median(numeric_only=True)
    rows = [["method", *(f"{d} mse" for d in DONORS), "S1D1 skill", "S2D1 skill", "feature sparsity"]]
    for method in [name for name in METHODS if name in set(table["method"])]:
        found = middle.loc[method]
        skills = [signed(found["skill"][donor]) for donor in DONORS[1:]]
        errors = [f"{found['mse'][donor]:.4f}" for donor in DONORS]
        rows.append([METHODS[method], *errors, *skills, f"{found['feature_sparsity'].iloc[0]:.2f}"])
    nulls = middle.loc["pathreg"].filter(like="null_").min(axis=1)
    if protocol == "paper":
        published = middle.loc["pathreg", "published_mse"]
        skills = [signed(1 - published[donor] / nulls[donor], 2) for donor in DONORS[1:]]
        rows.append(["published run, λ = 0.01", *(f"{published[d]:.4f}" for d in DONORS), *skills, "0.57"])
    return [*rows, ["best null model", *(f"{nulls[donor]:.4f}" for donor in DONORS), "0", "0", ""]]


def objectives_networks() -> Rows:
    """AUPRC ratio of the network and held-out skill of the trajectories, on BEELINE."""
    table = results("results/objectives.csv").query("seed == 0").set_index(["method", "data"])
    rows = [["method", *NETWORKS, "signs right, lowest"]]
    for method in list(OBJECTIVES)[:5]:
        found = table.loc[method].loc[list(NETWORKS)]
        cells = [f"{row.auprc_ratio:.2f} / {signed(row.skill)}" for row in found.itertuples()]
        rows.append([OBJECTIVES[method], *cells, f"{found['sign_accuracy'].min():.2f}"])
    return rows


def objectives_bone_marrow() -> Rows:
    """Skill on held-out cells and on two donors, in both protocols."""
    table = results("results/objectives.csv").set_index("method")
    table = table[table["data"].str.contains("|".join(PROTOCOLS))]
    places = [f"{place}, {protocol}" for protocol in PROTOCOLS for place in ("S1D2, held-out cells", *DONORS[1:])]
    heads = [
        place.replace("S1D2, held-out cells", "held-out cells").replace("recommended", "log1p") for place in places
    ]
    rows = [["method", "seeds", *heads, "feature sparsity, paper", "feature sparsity, log1p"]]
    for method, label in OBJECTIVES.items():
        own = table.loc[[method]]
        groups = own.groupby("data")
        seeds = groups["seed"].nunique()
        skill = groups["skill"].median()
        text = [signed(skill[place]) if place in skill else "" for place in places]
        sizes = "–".join(dict.fromkeys(str(number) for number in sorted(seeds)))
        zeros = [own[own["data"].str.contains(protocol)]["feature_sparsity"].median() for protocol in PROTOCOLS]
        rows.append([label, sizes, *text, *(f"{share:.2f}" for share in zeros)])
    return rows


def donor_models(together: bool) -> pd.DataFrame:
    """Skill of models of single donors, or of several."""
    table = results("results/donors.csv")
    return table[table["trained"].str.contains("+", regex=False) == together]


def donors(together: bool) -> Rows:
    """Skill of models of every donor on the two others, or of models of two on the third, on all and on later cells."""
    table = donor_models(together)
    skill = table.groupby(["trained", "predicted", "protocol", "method"])[["skill", "skill_later"]].median()
    columns = [(protocol, method) for protocol in PROTOCOLS for method in ("both", "trajectory")]
    heads = [f"{method}, {protocol.replace('recommended', 'log1p')}" for protocol, method in columns]
    rows = [["trained on", "predicted", *heads]]
    for trained, predicted in dict.fromkeys(zip(table["trained"], table["predicted"], strict=True)):
        skills = (" / ".join(map(signed, skill.loc[(trained, predicted, *column)])) for column in columns)
        rows.append([trained.replace("+", ", "), predicted, *skills])
    return rows


def limits() -> Rows:
    """Skill of curves on other donors beside that of the models, means over pairs and the range."""
    table = results("results/limits.csv").groupby(["protocol", "curve"])["skill"]
    models = donor_models(together=False).groupby(["protocol", "method", "trained", "predicted"])["skill"].median()
    rows = [["prediction", *(protocol.replace("recommended", "log1p") for protocol in PROTOCOLS)]]
    found = {name: [table.get_group((protocol, key)) for protocol in PROTOCOLS] for key, name in CURVES.items()}
    found |= {
        OBJECTIVES[method]: [models[protocol, method] for protocol in PROTOCOLS] for method in ("both", "trajectory")
    }
    for name, skills in found.items():
        rows.append([name, *(f"{signed(s.mean())} ({signed(s.min())} to {signed(s.max())})" for s in skills)])
    return rows


def motion() -> Rows:
    """The recipe, with every trial held out in turn: mean of the seeds."""
    table = results("paper/results/motion.csv").query("part == 'folds' and seed == 'mean'")
    rows = [["held out", "frames a second", "training, m²", "extrapolation, m²", "skill", "unseen trial, m²", "skill"]]
    for row in table.sort_values(["frame_rate", "held_out"]).itertuples():
        ahead = [f"{row.extrapolation_mse:.4f}", f"**{signed(row.extrapolation_skill, 2)}**"]
        unseen = [f"{row.unseen_mse:.4f}", f"**{signed(row.unseen_skill, 2)}**"]
        rows.append([row.held_out, str(row.frame_rate), f"{row.train_mse:.4f}", *ahead, *unseen])
    return rows


def motion_parts() -> Rows:
    """Parts of the recipe and other methods, with one trial held out: mean of the seeds."""
    table = results("paper/results/motion.csv").query("seed == 'mean' and held_out == '07_10' and frame_rate != 60")
    rows = [["changed", *(f"{what}, {rate}" for what in ("extrapolation skill", "unseen skill") for rate in (40, 120))]]
    for method, own in table.groupby("method", sort=False):
        own = own.set_index("frame_rate")
        names = ("extrapolation_skill", "unseen_skill")
        values = [own.loc[r, n] if r in own.index else None for n in names for r in (40, 120)]
        cells = ["" if x is None else signed(x, 2) for x in values]
        rows.append([str(method).replace("recipe", "nothing"), *cells])
    return rows


def other_walks() -> Rows:
    """The recipe on walks backwards, and on unseen trials that are faster, slower, larger or smaller: mean of the seeds."""
    table = results("paper/results/other_walks.csv").query("seed == 'mean'").set_index("part")
    backwards = table.loc["backwards"].set_index("frame_rate")
    skills = {
        "all walks backwards, fitted trials beyond their frames": backwards["extrapolation_skill"],
        "all walks backwards, unseen trial": backwards["unseen_skill"],
    }
    for factor, own in table.loc["faster"].groupby("factor"):
        skills[f"unseen trial at {factor} times its speed"] = own.set_index("frame_rate")["unseen_skill"]
    for factor, own in table.loc["larger"].query("factor != 1").groupby("factor"):
        skills[f"moving {factor} times as far"] = own.set_index("frame_rate")["unseen_skill"]
    rows = [["", *(f"{rate} a second" for rate in (40, 60, 120)), "above the null models in"]]
    for name, skill in skills.items():
        at_rates = skill.groupby(level=0)
        cells = [f"{signed(s.mean(), 2)} ({signed(s.min(), 2)} to {signed(s.max(), 2)})" for _, s in at_rates]
        rows.append([name, *cells, f"{(skill > 0).sum()} of {len(skill)}"])
    return rows


def paper_bone_marrow(protocol: str) -> Rows:
    """Skill with and without refit: median of the seeds, and mean of their trajectories."""
    table = results("paper/results/bone_marrow.csv").query("protocol == @protocol")
    rows = [
        [
            "method",
            "refit",
            *(f"{d}, {what}" for d in DONORS[1:] for what in ("seeds", "mean")),
            "feature / weight / spurious sparsity",
        ]
    ]
    for (method, relaxed), own in table.groupby(["method", "relaxed"], sort=False):
        cells = []
        for donor in DONORS[1:]:
            skill = own[own["donor"] == donor].set_index("seed")["skill"]
            cells += [spread(skill.drop("mean"), signed), signed(skill["mean"])]
        names = ("feature_sparsity", "weight_sparsity", "spurious_sparsity")
        shares = " / ".join(f"{own.loc[own['seed'] != 'mean', name].median():.2f}" for name in names)
        rows.append([str(method), "yes" if relaxed else "no", *cells, "" if relaxed else shares])
    return rows


def regularization_paths() -> Rows:
    """Feature sparsity, held-out error and, where there are known regulators, spurious sparsity along the paths."""
    table = results("paper/results/regularization_paths.csv").query("not diverged")
    strengths = sorted(table["strength"].round(6).unique())
    rows = [["data", "method", *(f"{strength:.2g}" for strength in strengths)]]
    for (data, method), own in table.groupby(["data", "method"], sort=False):
        measures = {"feature_sparsity": ".2f", "validation_error": ".3f", "spurious_sparsity": ".2f"}
        found = own.groupby(own["strength"].round(6))[list(measures)].median().loc[strengths].dropna(axis=1)
        cells = [", ".join(format(row[name], measures[name]) for name in found) for _, row in found.iterrows()]
        rows.append([str(data), str(method), *cells])
    return rows
