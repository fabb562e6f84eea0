"""Tables of networks: BEELINE, simulated and real cells, and reference networks from chromatin."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _tables import DONORS, NETWORKS, Rows, results, spread, strongest

NETWORK_METHODS = {
    "sparsenode": "transport (ours)",
    "sparsenode, shuffled": "pseudotime shuffled",
    "genie3": "GENIE3",
    "pearson": "Pearson",
    "partial_correlation": "partial correlation",
}
# Families of simulated networks whose cells come to rest in some states
_RESTING = ("repression", "attractors", "myeloid")
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
KNOCK_OUTS = {
    "both": "**both**, the default",
    "transport": "transport",
    "trajectory": "trajectory",
    "both, shuffled": "both, pseudotime shuffled",
    "ridge": "ridge regression, propagated",
    "regression": "regression on the gene",
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


def rests(networks: pd.Index) -> np.ndarray:
    """Which of the simulated networks have cells that come to rest in some states."""
    return networks.str.split(",").str[0].isin(_RESTING)


def compared(scores: pd.DataFrame, means: pd.Series) -> list[str]:
    """Cells of a row: means of the methods, and on how many of the networks, rows of the scores, ours is the highest."""
    highest = int((scores["sparsenode"] >= scores.max(axis=1)).sum())
    text = strongest(means.to_dict())
    return [*(text[method] for method in NETWORK_METHODS), f"{highest} of {len(scores)}"]


def geometric(ratios: pd.DataFrame) -> pd.Series:
    """Geometric mean of every column."""
    return np.exp(np.log(ratios).mean())


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
        at_rest, unseen = rests(own.index), own.index.str.endswith("c")
        for name, members in (
            ("move on", ~at_rest),
            ("move on, draws *c* alone", ~at_rest & unseen),
            ("rest in some states", at_rest),
            ("rest, draws *c* alone", at_rest & unseen),
        ):
            which = own[members]
            rows.append([str(n_cells), name, *compared(which, geometric(which))])
    return rows


def regulators() -> Rows:
    """Rank correlations of the strengths of genes with their numbers of targets, means over networks; in chains and rings these hardly differ."""
    table = results("results/simulated_networks.csv").dropna(subset="regulators")
    table = table[~table["network"].str.match("chain|ring")].groupby(["cells", "network", "method"], sort=False)
    ranks = table["regulators"].median().unstack()[list(NETWORK_METHODS)]
    rows = [["cells", "networks", *NETWORK_METHODS.values(), "ours is highest"]]
    for n_cells in ranks.index.unique("cells"):
        own = ranks.loc[n_cells]
        at_rest = rests(own.index)
        for name, which in (("move on", own[~at_rest]), ("rest in some states", own[at_rest])):
            rows.append([str(n_cells), name, *compared(which, which.mean())])
    return rows


def dropouts() -> Rows:
    """Geometric means of AUPRC ratios over networks whose cells move on or rest, without dropouts and with more and more of them."""
    full = results("results/simulated_networks.csv").query("cells == 2000").assign(quantile=0.0, zeros=0.0)
    table = pd.concat([full, results("results/dropouts.csv")]).query("seed == 0")
    rows = [["quantile, probability", "share of zeros", "networks", *NETWORK_METHODS.values(), "ours is highest"]]
    for quantile, own in table.groupby("quantile"):
        ratio = own.pivot(index="network", columns="method", values="auprc_ratio")[list(NETWORK_METHODS)]
        at_rest = rests(ratio.index)
        for name, which in (("move on", ratio[~at_rest]), ("rest in some states", ratio[at_rest])):
            about = [f"{quantile:g}", f"{own['zeros'].mean():.2f}" if quantile else "", name]
            rows.append([*about, *compared(which, geometric(which))])
    return rows


def estimated_pseudotime() -> Rows:
    """Geometric means of AUPRC ratios over families of simulated networks, by what their pseudotime is."""
    table = results("results/estimated_pseudotime.csv")
    ratio = table.groupby(["network", "method"], sort=False)["auprc_ratio"].median().unstack()[list(TIMES)]
    family = ratio.index.str.split(",").str[0].map(FAMILIES)
    rows = [["networks", *TIMES.values()]]
    for name in dict.fromkeys(family):
        own = ratio[family == name]
        means = strongest(geometric(own.dropna(axis=1)).to_dict())
        rows.append([f"{name} ({len(own)})", *(means.get(method, "") for method in TIMES)])
    return rows


def interventions() -> Rows:
    """Skill / share of right signs of knock-outs, means over families of simulated networks; skill is shown from −9.99 on."""
    table = results("results/interventions.csv")
    middle = table.groupby(["network", "method"], sort=False)[["skill", "sign_accuracy"]].median()
    skill, right = (middle[score].unstack()[list(KNOCK_OUTS)] for score in ("skill", "sign_accuracy"))
    family = skill.index.str.split(",").str[0].map(FAMILIES)
    groups = {f"{name} ({(family == name).sum()})": family == name for name in dict.fromkeys(family)}
    groups |= {f"all ({len(skill)})": family.notna(), "draws *c* alone (10)": skill.index.str.endswith("c")}
    rows = [["networks", *KNOCK_OUTS.values()]]
    for name, members in groups.items():
        shares = strongest(skill[members].mean().clip(lower=-9.99).to_dict())
        signs = right[members].mean()
        rows.append([name, *(f"{shares[method]} / {signs[method]:.2f}".replace("-", "−") for method in KNOCK_OUTS)])
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
        ("density", "as given"): "true edges",
        ("in_all", "as given"): "in all halves",
        ("precision_in_all", "as given"): "true, of these",
        ("precision_strongest", "as given"): "true, of as many strongest",
        ("precision_others", "as given"): "true, of the others",
        ("correlation", "as given"): "agreement",
        ("correlation", "permuted"): "agreement, permuted",
        ("precision_in_all", "permuted"): "true, of those in all halves, permuted",
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


def multiome_networks() -> Rows:
    """AUPRC ratio of networks of simulated multiomes: median over seeds, and the range."""
    table = results("results/multiome_networks.csv").groupby("method", sort=False)
    names = NETWORK_METHODS | {"sparsenode, prior": "transport, the reference network as prior", "spearman": "Spearman"}
    rows = [["method", "all edges", "without edges into factors"]]
    for method, own in table:
        rows.append(
            [names[method], *(spread(own[score], "{:.2f}".format) for score in ("auprc_ratio", "auprc_ratio_targets"))]
        )
    return rows
