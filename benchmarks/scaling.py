"""Step time, and time and memory of the streaming pass, with a thousand and with a million cells.

The cells are simulated: a stable linear ODE in 50 genes with two branches, observed with noise. They are written to an
h5ad file piece by piece, so the full matrix never is in memory, and read back through ``backed="r"`` or a dask array.

Columns of ``scaling_stream.csv``: ``stream_seconds`` is the pass over the cells that ``train()`` starts with; ``*_mb`` is
the peak resident memory of a fresh process (``resource.getrusage``) above its peak after the imports: first after opening
the file, ``setup_anndata`` and ``SparseNODE(…)``, most of it the table of cells; then after the streaming pass. Columns of ``scaling_steps.csv``: median time of an
optimisation step of both models, which train in turns in one process, and the ratio to the smaller one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _common

N_GENES = 50
N_GRID = 257
NOISE = 0.3
BACKINGS = ("backed", "dask")
ROWS = 20_000  # cells that are simulated, written or read by dask at once


def trajectories(seed: int = 0):
    """Two branches of a stable linear system from one start, branches × grid × genes."""
    import numpy as np
    from scipy.linalg import expm

    rng = np.random.default_rng(seed)
    links = rng.normal(size=(N_GENES, N_GENES)) * (rng.random((N_GENES, N_GENES)) < 0.02)
    system = 0.5 * links - np.diag(rng.uniform(2.0, 4.0, N_GENES))
    rests = rng.normal(size=(2, N_GENES))  # where the branches end
    start = rng.normal(size=N_GENES)
    step = expm(system / (N_GRID - 1))
    curves = np.empty((2, N_GRID, N_GENES))
    for branch, rest in enumerate(rests):
        deviation = start - rest
        for point in range(N_GRID):
            curves[branch, point] = rest + deviation
            deviation = step @ deviation
    return curves


def simulate(path: Path, n_cells: int) -> None:
    """Write an h5ad file with simulated cells, piece by piece."""
    import anndata
    import h5py
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(1)
    curves = trajectories()
    times, branches = rng.random(n_cells), rng.integers(0, 2, n_cells)
    obs = pd.DataFrame(
        {"time": times, "branch": pd.Categorical.from_codes(branches, ["a", "b"])}, index=np.arange(n_cells).astype(str)
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    anndata.AnnData(obs=obs, var=var).write_h5ad(path)
    with h5py.File(path, "a") as file:
        if "X" in file:
            del file["X"]
        x = file.create_dataset("X", (n_cells, N_GENES), "f4", chunks=(min(2_000, n_cells), N_GENES))
        x.attrs["encoding-type"], x.attrs["encoding-version"] = "array", "0.2.0"
        for first in range(0, n_cells, ROWS):
            rows = slice(first, min(first + ROWS, n_cells))
            place = times[rows] * (N_GRID - 1)
            left = np.minimum(place.astype(int), N_GRID - 2)
            share = (place - left)[:, None]
            branch = branches[rows]
            mean = (1 - share) * curves[branch, left] + share * curves[branch, left + 1]
            x[rows] = mean + NOISE * rng.normal(size=mean.shape)


def open_cells(path: Path, backing: str):
    """The cells of a file, none of them in memory."""
    import anndata

    if backing == "backed":
        return anndata.read_h5ad(path, backed="r")
    import dask.array
    import h5py
    from anndata.io import read_elem

    file = h5py.File(path, "r")
    x = dask.array.from_array(file["X"], chunks=(ROWS, N_GENES))
    return anndata.AnnData(x, obs=read_elem(file["obs"]), var=read_elem(file["var"]))


def build(path: Path, backing: str):
    """Model of the cells in a file, whose streaming pass is timed and done once."""
    from _timing import TimedPlan

    from sparsenode import SparseNODE

    class Streamed(SparseNODE):
        """Streams at the first training only."""

        _training_plan_cls = TimedPlan
        _splitter = None
        stream_seconds = 0.0

        def _prepare(self, *args):
            if self._splitter is None:
                start = time.perf_counter()
                self._splitter = super()._prepare(*args)
                self.stream_seconds = time.perf_counter() - start
            return self._splitter

    adata = open_cells(path, backing)
    Streamed.setup_anndata(adata, time_key="time", lineage_key="branch")
    return Streamed(adata, objective="trajectory")


def train(model, epochs: int, steps: int) -> list[float]:
    """Train, and return the seconds of every step."""
    from lightning.pytorch.callbacks import Callback

    class Keep(Callback):
        seconds: list[float]

        def on_fit_end(self, trainer, pl_module) -> None:
            self.seconds = pl_module.seconds

    keep = Keep()
    model.train(
        max_epochs=epochs,
        steps_per_epoch=steps,
        accelerator="cpu",
        key_added=None,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[keep],
    )
    return keep.seconds


def measure_stream(path: Path, backing: str, threads: int) -> dict:
    """In a fresh process: memory and time of the streaming pass."""
    import resource

    import dask.array  # noqa: F401
    import h5py  # noqa: F401
    import torch
    from _timing import quiet

    def peak() -> float:
        unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    quiet()
    torch.set_num_threads(threads)
    imported = peak()
    start = time.perf_counter()
    model = build(path, backing)
    setup, after_setup = time.perf_counter() - start, peak()
    train(model, 1, 2)
    return {
        "setup_seconds": setup,
        "stream_seconds": model.stream_seconds,
        "import_mb": imported,
        "setup_mb": after_setup - imported,
        "stream_mb": peak() - imported,
    }


def measure_steps(paths: list[Path], backing: str, threads: int, blocks: int, block: int) -> list[list[float]]:
    """In a fresh process: seconds of the steps of models that train in turns, after a first block to warm up."""
    import torch
    from _timing import quiet

    quiet()
    torch.set_num_threads(threads)
    models = [build(path, backing) for path in paths]
    seconds: list[list[float]] = [[] for _ in paths]
    for number in range(blocks + 1):
        for model, found in zip(models, seconds, strict=True):
            times = train(model, 2, block // 2)
            if number > 0:
                found += times
    return seconds


def in_process(options: argparse.Namespace, task: str, *arguments: object):
    """Run a measurement in a fresh process and return what it prints last."""
    command = [sys.executable, __file__, "--task", task, "--threads", str(options.threads), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.strip().splitlines()[-1])


def parse() -> argparse.Namespace:
    """Command line."""
    parser = _common.parser(__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--backings", nargs="+", default=list(BACKINGS), choices=BACKINGS)
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes for each streaming pass")
    parser.add_argument("--blocks", type=int, default=10, help="blocks of steps of every model")
    parser.add_argument("--block", type=int, default=50, help="steps in a block")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--folder", type=Path, default=None, help="where the simulated cells are kept for the time")
    parser.add_argument("--task", choices=["simulate", "stream", "steps"], help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.cells, options.repeats, options.blocks, options.block = [1_000, 50_000], 1, 2, 20
    return options


def run_task(options: argparse.Namespace) -> None:
    """What a fresh process does."""
    first, *others = options.arguments
    if options.task == "simulate":
        simulate(Path(first), int(others[0]))
        print("null")
    elif options.task == "stream":
        print(json.dumps(measure_stream(Path(first), others[0], options.threads)))
    else:
        backing, blocks, block = first, int(others[0]), int(others[1])
        print(json.dumps(measure_steps([Path(p) for p in others[2:]], backing, options.threads, blocks, block)))


def main() -> None:
    options = parse()
    if options.task:
        run_task(options)
        return
    # No heavy imports in this process: on Linux the peak memory of a child starts at the memory of its parent.
    import statistics

    streams, steps = [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        paths = [Path(folder) / f"{n}.h5ad" for n in options.cells]
        for path, n_cells in zip(paths, options.cells, strict=True):
            in_process(options, "simulate", path, n_cells)
        for backing in options.backings:
            for path, n_cells in zip(paths, options.cells, strict=True):
                found = [in_process(options, "stream", path, backing) for _ in range(options.repeats)]
                row = {key: statistics.median(f[key] for f in found) for key in found[0]}
                streams.append({"backing": backing, "cells": n_cells, "genes": N_GENES, **row})
                print(streams[-1], flush=True)
            seconds = in_process(options, "steps", backing, options.blocks, options.block, *paths)
            medians = [1000 * statistics.median(s) for s in seconds]
            for n_cells, median, s in zip(options.cells, medians, seconds, strict=True):
                row = {"steps": len(s), "step_ms": median, "ratio": median / medians[0]}
                steps.append({"backing": backing, "cells": n_cells, "genes": N_GENES, **row})
                print(steps[-1], flush=True)
    del options.task, options.arguments
    _common.save("scaling_stream", streams, options, genes=N_GENES, noise=NOISE)
    _common.save("scaling_steps", steps, options, genes=N_GENES, noise=NOISE)


if __name__ == "__main__":
    main()
