"""Time of one optimisation step of every regularizer beside PathReg, and of 16 strengths beside one.

Every model trains on S1D2 (or another ``--donor``) in the protocol of the paper (529 genes, 3 lineages, one shared field) in a fresh process, in turns, so that a
busy machine slows all of them down alike.

Columns: ``step_ms`` is the median time of one call of the optimiser (forward, backward, clipping, AdamW, proximal step);
``times_pathreg`` is the ratio to PathReg with the same hidden layers and one strength; ``peak_mb`` is the peak resident
memory of the process above that after the imports and the reading of the data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import _common

METHODS = {
    "pathreg": ("PathReg(0.1)", (100, 100)),
    "pathreg, 16 strengths": ("PathReg(np.logspace(-3, 1, 16).tolist())", (100, 100)),
    "cnode": ("CNODE(0.01)", (100, 100)),
    "l0": ("L0(0.1)", (100, 100)),
    "none": ("NoRegularizer()", (100, 100)),
    "lassonet": ("LassoNet(0.01)", (100, 100)),
    "grouplasso": ("GroupLasso(0.01)", (100, 100)),
    "grouplasso, hidden (10,)": ("GroupLasso(0.01)", (10,)),
}


def measure(path: Path, regularizer: str, hidden: list[int], steps: int) -> dict[str, float]:
    """In a fresh process: train for some steps."""
    import resource
    import statistics

    import numpy as np
    import torch
    from _timing import TimedPlan, quiet

    from sparsenode import SparseNODE, regularizers

    quiet()
    torch.set_num_threads(2)
    adata = _common.trajectories(_common.read_donor(path))
    SparseNODE.setup_anndata(adata, time_key=_common.TIME_KEY, lineage_key=_common.LINEAGE_KEY)
    unit = 1e6 if sys.platform == "darwin" else 1e3
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    penalty = eval(regularizer, vars(regularizers) | {"np": np})
    model = SparseNODE(adata, penalty, hidden, objective="trajectory", fields="shared")
    plans: list[TimedPlan] = []

    class Plan(TimedPlan):
        """Remembers itself."""

        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            plans.append(self)

    model._training_plan_cls = Plan
    model.train(
        max_epochs=1,
        steps_per_epoch=steps,
        accelerator="cpu",
        schedule="sparse",
        key_added=None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    seconds = plans[0].seconds[min(5, steps // 2) :]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"step_ms": 1000 * statistics.median(seconds), "peak_mb": peak - before}


def parse() -> argparse.Namespace:
    """Command line."""
    parser = _common.parser(__doc__.splitlines()[0])
    _common.add_data_argument(parser)
    _common.add_donor_argument(parser)
    parser.add_argument("--steps", type=int, default=30, help="optimisation steps of each model")
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes for each model")
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.steps, options.repeats = 6, 1
    if not options.task:  # tasks import what they measure themselves
        from bone_marrow import check_donors

        check_donors(parser, options.data, [options.donor], protocols=["paper"])
    return options


def main() -> None:
    options = parse()
    path = options.data / "bone_marrow" / f"{options.donor}.h5ad"
    if options.task:
        regularizer, hidden, steps = options.task
        print(json.dumps(measure(path, regularizer, json.loads(hidden), int(steps))))
        return
    import statistics

    found: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    for _ in range(options.repeats):
        for name, (regularizer, hidden) in METHODS.items():
            task = ["--task", regularizer, json.dumps(hidden), str(options.steps)]
            command = [sys.executable, __file__, "--data", str(options.data), "--donor", options.donor, *task]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                sys.exit(result.stderr)
            *said, measured = result.stdout.strip().splitlines()
            if not any(found.values()):  # every process reads the same donor
                for line in said:
                    print(line)
            found[name].append(json.loads(measured))
            print(name, found[name][-1], flush=True)
    reference = statistics.median(f["step_ms"] for f in found["pathreg"])
    rows = []
    for name, values in found.items():
        step = statistics.median(f["step_ms"] for f in values)
        peak = statistics.median(f["peak_mb"] for f in values)
        hidden = "x".join(map(str, METHODS[name][1]))
        rows.append(
            {"method": name, "hidden": hidden, "step_ms": step, "times_pathreg": step / reference, "peak_mb": peak}
        )
    del options.task
    _common.save("methods", rows, options)


if __name__ == "__main__":
    main()
