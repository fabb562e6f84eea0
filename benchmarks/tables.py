"""The tables of the documentation, from the committed results.

A page marks where a table belongs with ``<!-- table: NAME -->`` and ``<!-- end of table -->``; this script rewrites what is
in between, so no figure in such a table is typed by hand. The tests run it with ``--check``, which only says whether a page
differs from the results.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

import _equation_tables as equations
import _forecast_tables as forecasts
import _network_tables as networks
from _summary_table import at_a_glance
from _tables import HERE, Rows, markdown

DOCS = HERE.parent / "docs"
PAGES = [*sorted((DOCS / "benchmarks").glob("*.md")), DOCS / "user_guide" / "reproducing_the_paper.md"]
REGION = re.compile(r"(<!-- table: ([a-z_]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
TABLES: dict[str, Callable[[], Rows]] = {
    "at_a_glance": at_a_glance,
    "bone_marrow": lambda: forecasts.bone_marrow("paper"),
    "bone_marrow_recommended": lambda: forecasts.bone_marrow("recommended"),
    "objectives_networks": forecasts.objectives_networks,
    "objectives_bone_marrow": forecasts.objectives_bone_marrow,
    "donors": lambda: forecasts.donors(together=False),
    "donors_together": lambda: forecasts.donors(together=True),
    "limits": forecasts.limits,
    "speed": equations.speed,
    "beeline": networks.beeline,
    "simulated_networks": networks.simulated_networks,
    "simulated_cells": networks.simulated_cells,
    "regulators": networks.regulators,
    "dropouts": networks.dropouts,
    "estimated_pseudotime": networks.estimated_pseudotime,
    "interventions": networks.interventions,
    "sensitivity": networks.sensitivity,
    "stability": networks.stability,
    "real_networks": networks.real_networks,
    "real_ridge": networks.real_ridge,
    "recovery_support": lambda: equations.recovery("linear", "support_exact", 2, largest=True),
    "recovery_coefficients": lambda: equations.recovery("linear", "coefficient_error", 3, largest=False),
    "recovery_linear_extrapolation": lambda: equations.recovery("linear", "extrapolation_error", 4, largest=False),
    "recovery_hill_ranking": lambda: equations.recovery("hill", "auprc_ratio", 2, largest=True),
    "recovery_hill_zeros": lambda: equations.recovery("hill", "f1", 2, largest=True),
    "recovery_hill_extrapolation": lambda: equations.recovery("hill", "extrapolation_error", 2, largest=False),
    "multiome": networks.multiome,
    "multiome_networks": networks.multiome_networks,
    "second_order": lambda: equations.second_order("fixed"),
    "second_order_random": lambda: equations.second_order("random"),
    "second_order_noise": equations.second_order_noise,
    "motion": forecasts.motion,
    "motion_parts": forecasts.motion_parts,
    "other_walks": forecasts.other_walks,
    "paper_bone_marrow": lambda: forecasts.paper_bone_marrow("recommended"),
    "paper_bone_marrow_scaled": lambda: forecasts.paper_bone_marrow("paper"),
    "regularization_paths": forecasts.regularization_paths,
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
