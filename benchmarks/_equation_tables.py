"""Tables of known equations that are to be recovered, of first and second order, and of speed."""

from __future__ import annotations

from _tables import METHODS, Rows, results, small, spread, strongest

NOISE = (0.0, 0.01, 0.05, 0.1)
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
