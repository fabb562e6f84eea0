"""The tables of the documentation, from the committed results.

A page marks where a table belongs with ``<!-- table: NAME -->`` and ``<!-- end of table -->``; this script rewrites what is
in between, so no figure in a table is typed by hand. The tests run it with ``--check``, which only says whether a page
differs from the results.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
PAGES = [HERE.parent / "docs" / name for name in ("benchmarks.md", "user_guide/reproducing_the_paper.md")]
REGION = re.compile(r"(<!-- table: ([a-z_]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
DONORS = ("S1D2", "S1D1", "S2D1")
PROTOCOLS = ("paper", "recommended")
NETWORKS = ("VSC", "dyn-BF", "dyn-LI", "dyn-TF")
NOISE = (0.0, 0.01, 0.05, 0.1)
_LARGEST = 100  # errors beyond this are called so
METHODS = {
    "pathreg": "PathReg",
    "pathreg, first five cells": "PathReg, first five cells",
    "cnode": "C-NODE",
    "grouplasso": "GroupLasso",
    "l0": "L0",
    "lassonet": "LassoNet, inner",
    "lassonet_outer": "LassoNet, outer",
    "none": "no penalty",
    "pysindy": "PySINDy, degree 2",
    "pysindy_linear": "PySINDy, degree 1",
    "least_squares": "least squares, degree 2",
    "least_squares_linear": "least squares, degree 1",
}
SECOND_ORDER = {
    "C-NODE": "C-NODE",
    "PathReg": "PathReg, gates by weight",
    "GroupLasso": "GroupLasso",
    "L0": "L0",
    "LassoNet inner": "LassoNet, inner",
    "LassoNet outer": "LassoNet, outer",
    "base": "base, the same recipe without penalty",
    "base, paper": "base, as in the paper",
}
NETWORK_METHODS = {
    "sparsenode": "transport (ours)",
    "sparsenode, shuffled": "pseudotime shuffled",
    "genie3": "GENIE3",
    "pearson": "Pearson",
    "partial_correlation": "partial correlation",
}
# Families of simulated networks whose cells come to rest in some states
RESTING = ("repression", "attractors", "myeloid")
TIMES = {
    "true": "true",
    "diffusion": "diffusion",
    "diffusion, not centred": "the same, not centred",
    "curves": "curves, one for each lineage",
    "curves, not centred": "the same, not centred",
    "curves, mean": "curves, mean over lineages",
    "genie3": "GENIE3",
    "partial_correlation": "partial correlation",
}
FAMILIES = {
    "chain": "chains",
    "ring": "ring",
    "bifurcation": "bifurcations",
    "random": "random",
    "repression": "repression",
    "attractors": "attractors",
    "myeloid": "myeloid",
}
OBJECTIVES = {
    "both": "**both**, the default",
    "trajectory": "trajectory",
    "transport": "transport",
    "transport, refitted": "transport, then refitted",
    "transport, fine-tuned": "transport, then fine-tuned",
    "both, ridge 1": "both, ridge 1 in both fits",
    "both, one field, ridge 1": "both, one field for all lineages, ridge 1",
}
CURVES = {
    "training donor": "curve of the training donor",
    "moved by early cells": "moved by the difference of initial states",
    "moved by half of that": "moved by half of that difference",
    "moved by half of the first quarter": "moved by half of the difference of the first quarter of the cells",
    "moved by all cells": "moved by the difference of all cells",
    "own curve": "curve of the predicted donor, from its other cells",
}
Rows = list[list[str]]


def results(name: str) -> pd.DataFrame:
    """A committed table."""
    return pd.read_csv(HERE / name)


def signed(value: float, digits: int = 3) -> str:
    """With its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def small(value: float, digits: int = 2) -> str:
    """So many significant digits, without an exponent."""
    return np.format_float_positional(value, precision=digits, fractional=False, trim="-")


def spread(values: pd.Series, text: Callable[[float], str], unit: str = "") -> str:
    """Median, and the range where there is one."""
    low, median, high = (text(value) for value in (values.min(), values.median(), values.max()))
    return median + unit if low == high else f"{median}{unit} ({low} to {high})"


def strongest(values: Mapping[str, float], digits: int = 2, largest: bool = True) -> dict[str, str]:
    """Rounded, the best of them bold; what is equal after rounding is equally good."""
    rounded = {name: round(value, digits) for name, value in values.items()}
    best = (max if largest else min)(rounded.values())
    text = {name: f"{value:.{digits}f}" if value < _LARGEST else f"> {_LARGEST}" for name, value in rounded.items()}
    return {name: f"**{text[name]}**" if value == best else text[name] for name, value in rounded.items()}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its header."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body]) + "\n"


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


def speed() -> Rows:
    """A step against the published loop."""
    rows = [
        [
            "threads",
            "gates",
            "replicates",
            "published loop, ms",
            "ours, ms per replicate",
            "times faster",
            "with Lightning's overhead",
        ]
    ]
    for row in results("results/speed.csv").itertuples():
        cells = [f"{row.published_ms:.0f}", f"{row.step_ms_per_replicate:.1f}"]
        ratios = [f"{row.times_faster_step:.0f}", f"{row.times_faster_epoch:.0f}"]
        rows.append([str(row.threads), row.gates, str(row.strengths * row.seeds), *cells, *ratios])
    return rows


def beeline() -> Rows:
    """AUPRC ratio / early precision ratio beside baselines and the best published method."""
    table = results("results/beeline.csv").groupby(["network", "method"]).median(numeric_only=True)
    published = results("results/beeline_best_published.csv").set_index("network")
    names = NETWORK_METHODS
    rows = [["network", *names.values(), "best of twelve published", "signs right"]]
    for network in ("dyn-BF", "dyn-TF", "dyn-LI", "VSC", "mCAD"):
        scores = []
        for score in ("auprc_ratio", "epr"):
            own = {name: table.loc[network, name][score] for name in names}
            scores.append(strongest(own | {"published": published.loc[network, score]}))
        cells = [f"{scores[0][name]} / {scores[1][name]}" for name in scores[0]]
        rows.append([network, *cells, f"{table.loc[network, 'sparsenode']['sign_accuracy']:.2f}"])
    return rows


def simulated_networks() -> Rows:
    """AUPRC ratio / early precision ratio on simulated networks, with most cells."""
    table = results("results/simulated_networks.csv").query("cells == cells.max()")
    table = table.groupby(["network", "method"], sort=False).median(numeric_only=True)
    rows = [["network", *NETWORK_METHODS.values(), "signs right"]]
    for network in table.index.unique("network"):
        own = table.loc[network]
        scores = [strongest(own[score].loc[list(NETWORK_METHODS)].to_dict()) for score in ("auprc_ratio", "epr")]
        cells = [f"{scores[0][name]} / {scores[1][name]}" for name in NETWORK_METHODS]
        rows.append([network, *cells, f"{own.loc['sparsenode', 'sign_accuracy']:.2f}"])
    return rows


def simulated_cells() -> Rows:
    """Geometric means of AUPRC ratios over networks whose cells move on or rest, also unseen ones, with fewer and fewer cells."""
    table = results("results/simulated_networks.csv").groupby(["cells", "network", "method"], sort=False)
    ratio = table["auprc_ratio"].median().unstack()[list(NETWORK_METHODS)]
    rows = [["cells", "networks", *NETWORK_METHODS.values(), "ours is highest"]]
    for n_cells in ratio.index.unique("cells"):
        own = ratio.loc[n_cells]
        rests, unseen = own.index.str.split(",").str[0].isin(RESTING), own.index.str.endswith("c")
        for name, members in (
            ("move on", ~rests),
            ("move on, draws *c* alone", ~rests & unseen),
            ("rest in some states", rests),
            ("rest, draws *c* alone", rests & unseen),
        ):
            which = own[members]
            means = strongest(np.exp(np.log(which).mean()).to_dict())
            highest = int((which["sparsenode"] >= which.max(axis=1)).sum())
            own_row = [str(n_cells), name, *(means[method] for method in NETWORK_METHODS)]
            rows.append([*own_row, f"{highest} of {len(which)}"])
    return rows


def estimated_pseudotime() -> Rows:
    """Geometric means of AUPRC ratios over families of simulated networks, by what their pseudotime is."""
    table = results("results/estimated_pseudotime.csv")
    ratio = table.groupby(["network", "method"], sort=False)["auprc_ratio"].median().unstack()[list(TIMES)]
    family = ratio.index.str.split(",").str[0].map(FAMILIES)
    rows = [["networks", *TIMES.values()]]
    for name in dict.fromkeys(family):
        own = ratio[family == name]
        means = strongest(np.exp(np.log(own.dropna(axis=1)).mean()).to_dict())
        rows.append([f"{name} ({len(own)})", *(means.get(method, "") for method in TIMES)])
    return rows


def sensitivity() -> Rows:
    """AUPRC ratio with one setting changed at a time."""
    table = results("results/sensitivity.csv")
    rows = [["setting", *NETWORKS]]
    for (setting, value), own in table.groupby(["setting", "value"], sort=False):
        ratio = own.set_index("network")["auprc_ratio"]
        name = "defaults" if (setting, value) == ("seed", "0") else f"{setting} {value}"
        rows.append([name, *(f"{ratio[network]:.2f}" for network in NETWORKS)])
    return rows


def stability() -> Rows:
    """Edges that are in every half of the cells, with pseudotime and without its order; means over seeds."""
    table = results("results/stability.csv").groupby(["network", "pseudotime"]).mean(numeric_only=True)
    shown = {
        ("density", "as given"): "true edges, share of all pairs",
        ("in_all", "as given"): "pairs non-zero in all ten halves, share of all pairs",
        ("precision_in_all", "as given"): "true, share of these",
        ("precision_strongest", "as given"): "true, share of as many strongest pairs of one fit to all cells",
        ("precision_others", "as given"): "true, share of pairs that are zero in some half",
        ("correlation", "as given"): "rank correlation of weights between complementary halves",
        ("correlation", "permuted"): "that correlation, pseudotime permuted",
        ("precision_in_all", "permuted"): "true, share of pairs non-zero in all halves, pseudotime permuted",
    }
    rows = [["network", *shown.values()]]
    for network in table.index.unique("network"):
        rows.append([str(network), *(f"{table.loc[(network, kind), name]:.2f}" for name, kind in shown)])
    return rows


def real_networks() -> Rows:
    """AUPRC ratio of three lineages on three donors."""
    table = results("results/real_networks.csv").groupby(["donor", "method", "lineage"])["auprc_ratio"].median()
    names = {
        "sparsenode": "transport (ours)",
        "sparsenode, shuffled": "pseudotime shuffled, median of two",
        "pearson": "Pearson",
        "spearman": "Spearman",
        "genie3": "GENIE3, 50 trees",
        "sparsenode, lineage": "transport, network of the lineage",
        "pearson, lineage": "Pearson, cells of the lineage",
        "spearman, lineage": "Spearman, cells of the lineage",
        "genie3, lineage": "GENIE3, cells of the lineage",
    }
    lineages = {"monocyte": "monocyte", "erythroid": "erythroid", "b_cell": "B cell"}
    rows = [["donor", "method", *lineages.values()]]
    for donor in DONORS:
        cells = [strongest({name: table[donor, name, lineage] for name in names}) for lineage in lineages]
        for name, label in names.items():
            rows.append([donor if name == "sparsenode" else "", label, *(cell[name] for cell in cells)])
    return rows


def real_ridge() -> Rows:
    """AUPRC ratios of the same networks with other ridges, three donors each."""
    table = results("results/real_networks.csv").groupby(["method", "lineage", "donor"])["auprc_ratio"].median()
    lineages = {"monocyte": "monocyte", "erythroid": "erythroid", "b_cell": "B cell"}
    ridges = {"sparsenode, ridge 0": "0", "sparsenode": "**0.5**, the default", "sparsenode, ridge 2": "2"}
    return [
        ["ridge", *(f"{lineage}: {', '.join(DONORS)}" for lineage in lineages.values())],
        *(
            [label, *(" / ".join(f"{table[name, lineage, donor]:.2f}" for donor in DONORS) for lineage in lineages)]
            for name, label in ridges.items()
        ),
    ]


def recovery(kind: str, measure: str, digits: int, largest: bool) -> Rows:
    """One measure of every method against noise, regular / irregular times; the best of every column is bold."""
    table = results("results/recovery_summary.csv").query("kind == @kind")
    table = table.assign(noise=table["noise"].round(4)).set_index(["method", "sampling", "noise"])
    rows = [["method", *(f"{100 * noise:g} % {how[:3]}." for how in ("regular", "irregular") for noise in NOISE)]]
    methods = [name for name in METHODS if name in table.index.get_level_values(0)]
    columns = [
        strongest({name: table.loc[(name, how, noise), measure] for name in methods}, digits, largest)
        for how in ("regular", "irregular")
        for noise in NOISE
    ]
    label = METHODS | (
        {"pysindy": "PySINDy, degree 1", "least_squares": "least squares, degree 1"} if kind == "linear" else {}
    )
    return [*rows, *([label[name], *(column[name] for column in columns)] for name in methods)]


def multiome() -> Rows:
    """Reference networks and pseudotime of simulated multiomes."""
    table = results("results/multiome.csv")
    names = {
        "lineage_precision": "precision, mean over lineages",
        "lineage_recall": "recall, mean over lineages",
        "union_precision": "precision, all cell types together",
        "worst_cell_type_precision": "precision, worst single cell type",
        "time_correlation": "rank correlation of diffusion pseudotime with the true time, worse fate",
        "cells_in_their_lineage": "cells kept in the lineage of their true fate",
    }
    rows = [["", f"lowest of {len(table)} seeds", "median"]]
    return [
        *rows,
        *([label, f"{table[name].min():.3f}", f"{table[name].median():.3f}"] for name, label in names.items()),
    ]


def second_order(system: str) -> Rows:
    """The fixed system, or random ones, without noise."""
    table = results("paper/results/second_order.csv").query("system == @system and noise == 0 and not irregular")
    rows = [
        [
            "method",
            "support exact",
            "coefficient error",
            "largest error of a coefficient",
            "training",
            "extrapolation to twice the time",
            "feature / weight sparsity",
        ]
    ]
    for method, label in SECOND_ORDER.items():
        own = table[table["method"] == method]
        exact = f"{int(own['support_exact'].sum())} of {len(own)}"
        errors = [spread(100 * own[name], small, " %") for name in ("coefficient_error", "largest_coefficient_error")]
        shares = " / ".join(f"{own[name].median():.2f}" for name in ("feature_sparsity", "weight_sparsity"))
        errors += [spread(own[f"{part}_error"], lambda x: small(x, 1)) for part in ("train", "extrapolation")]
        rows.append([label, exact, *errors, shares])
    return rows


def second_order_noise() -> Rows:
    """Extrapolation error under noise and at irregular times, with the wrong zeros and non-zeros in brackets."""
    table = results("paper/results/second_order.csv").query("system == 'fixed' and (noise > 0 or irregular)")
    conditions = {(0.05, False): "5 % noise", (0.0, True): "irregular times", (0.05, True): "both"}
    present = [key for key in conditions if ((table["noise"] == key[0]) & (table["irregular"] == key[1])).any()]
    rows = [["method", *(conditions[key] for key in present)]]
    for method in [name for name in SECOND_ORDER if name in set(table["method"])]:
        own, cells = table[table["method"] == method], []
        for noise, irregular in present:
            some = own[(own["noise"] == noise) & (own["irregular"] == irregular)]
            wrong = ", ".join(f"{number:g}" for number in some["support_errors"])
            cells.append(", ".join(small(x) for x in some["extrapolation_error"]) + f" ({wrong})" if len(some) else "")
        rows.append([SECOND_ORDER[method], *cells])
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
    """Feature sparsity and held-out error along the paths."""
    table = results("paper/results/regularization_paths.csv")
    strengths = sorted(table["strength"].round(6).unique())
    rows = [["data", "method", *(f"{strength:.2g}" for strength in strengths)]]
    for (data, method), own in table.groupby(["data", "method"], sort=False):
        found = own.groupby(own["strength"].round(6))[["feature_sparsity", "validation_error"]].median()
        cells = [f"{row.feature_sparsity:.2f}, {row.validation_error:.3f}" for row in found.loc[strengths].itertuples()]
        rows.append([str(data), str(method), *cells])
    return rows


TABLES: dict[str, Callable[[], Rows]] = {
    "bone_marrow": lambda: bone_marrow("paper"),
    "bone_marrow_recommended": lambda: bone_marrow("recommended"),
    "objectives_networks": objectives_networks,
    "objectives_bone_marrow": objectives_bone_marrow,
    "donors": lambda: donors(together=False),
    "donors_together": lambda: donors(together=True),
    "limits": limits,
    "speed": speed,
    "beeline": beeline,
    "simulated_networks": simulated_networks,
    "simulated_cells": simulated_cells,
    "estimated_pseudotime": estimated_pseudotime,
    "sensitivity": sensitivity,
    "stability": stability,
    "real_networks": real_networks,
    "real_ridge": real_ridge,
    "recovery_support": lambda: recovery("linear", "support_exact", 2, largest=True),
    "recovery_coefficients": lambda: recovery("linear", "coefficient_error", 3, largest=False),
    "recovery_linear_extrapolation": lambda: recovery("linear", "extrapolation_error", 4, largest=False),
    "recovery_hill_ranking": lambda: recovery("hill", "auprc_ratio", 2, largest=True),
    "recovery_hill_zeros": lambda: recovery("hill", "f1", 2, largest=True),
    "recovery_hill_extrapolation": lambda: recovery("hill", "extrapolation_error", 2, largest=False),
    "multiome": multiome,
    "second_order": lambda: second_order("fixed"),
    "second_order_random": lambda: second_order("random"),
    "second_order_noise": second_order_noise,
    "motion": motion,
    "motion_parts": motion_parts,
    "paper_bone_marrow": lambda: paper_bone_marrow("recommended"),
    "paper_bone_marrow_scaled": lambda: paper_bone_marrow("paper"),
    "regularization_paths": regularization_paths,
}


def filled(text: str) -> str:
    """A page with its tables as the results have them."""
    return REGION.sub(lambda match: match[1] + "\n" + markdown(TABLES[match[2]]()) + "\n" + match[3], text)


def main() -> None:
    """Rewrite the pages, or say which differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page differs")
    check = parser.parse_args().check
    stale = {page: new for page in PAGES if (new := filled(page.read_text())) != page.read_text()}
    for page, text in stale.items():
        print(f"{'differs' if check else 'rewritten'}: {page.relative_to(HERE.parent)}")
        if not check:
            page.write_text(text)
    sys.exit(bool(stale) and check)


if __name__ == "__main__":
    main()
