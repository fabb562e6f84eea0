"""Time of one optimisation step, beside that of the published training loop.

The published loop (Aliee et al. 2022) is rewritten here from its description: every lineage is integrated by itself with
dopri5 over all its cell times, and the gates are sampled anew at every evaluation of the field. Ours is the real
``model.train()``. Both alternate in one process: a callback of the trainer runs a block of published steps after every block of
ours.

Columns: ``threads`` is what torch was given, and what the published loop runs on; ``step_threads`` is what ``train()`` took of
them. ``step_ms`` is one call of the optimiser (forward, backward, clipping, AdamW, proximal step); ``loop_ms`` adds what
Lightning does from one batch to the next; ``epoch_ms`` is the time of a whole epoch, with logging and validation, divided
by its steps. All three are divided by the number of replicates in the columns ``*_per_replicate``. Medians, except
``epoch_ms``, a mean over epochs.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from itertools import product

import _common
import anndata
import bone_marrow
import numpy as np
import torch
from _timing import TimedPlan, quiet
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional
from torchdiffeq import odeint

from sparsenode import SparseNODE
from sparsenode.regularizers import PathReg

STRENGTH = 0.01
HIDDEN = (100, 100)
INITIAL_CLOSED = (0.2, 0.5, 0.5)  # initial drop rates of the gates of the three layers
N_FIRST = 5


class PublishedField(nn.Module):
    """Field of the published code: gates per input unit of each layer, sampled at every evaluation."""

    beta, low, high = 2 / 3, -0.1, 1.1

    def __init__(self, n_vars: int) -> None:
        super().__init__()
        sizes = [n_vars, *HIDDEN, n_vars]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.logits = nn.ParameterList(
            nn.Parameter(torch.empty(size).normal_(math.log((1 - closed) / closed), 0.01))
            for size, closed in zip(sizes[:-1], INITIAL_CLOSED, strict=True)
        )
        self.n_evaluations = 0

    def sample(self, logits: torch.Tensor) -> torch.Tensor:
        """Hard-concrete gates."""
        noise = torch.empty_like(logits).uniform_(1e-6, 1 - 1e-6)
        soft = torch.sigmoid((torch.log(noise) - torch.log(1 - noise) + logits) / self.beta)
        return functional.hardtanh(soft * (self.high - self.low) + self.low, 0.0, 1.0)

    def forward(self, _: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Derivative; gating the inputs of a layer costs less than gating its weights and is the same."""
        self.n_evaluations += 1
        first, second, third = self.layers
        h = functional.elu(first(x * self.sample(self.logits[0])))
        h = second(h * self.sample(self.logits[1]))
        return third(h * self.sample(self.logits[2]))

    def penalty(self) -> torch.Tensor:
        """Mean entry of the path matrix of weights, and a tenth of that of sampled gates, both formed in full."""
        weights = [layer.weight.abs() for layer in self.layers]
        gates = [self.sample(logits).expand_as(weight) for logits, weight in zip(self.logits, weights, strict=True)]
        return (weights[2] @ weights[1] @ weights[0]).mean() + 0.1 * (gates[2] @ gates[1] @ gates[0]).mean()


class PublishedLoop:
    """The published training loop, one step at a time."""

    def __init__(self, adata: anndata.AnnData, threads: int) -> None:
        torch.manual_seed(0)
        self.threads = threads
        self.data = []
        for lineage in adata.obs[_common.LINEAGE_KEY].cat.categories:
            cells = adata[adata.obs[_common.LINEAGE_KEY] == lineage]
            times, index = np.unique(cells.obs[_common.TIME_KEY].to_numpy(np.float32), return_inverse=True)
            x = torch.as_tensor(np.asarray(cells.X, dtype=np.float32))
            self.data.append((torch.as_tensor(times), torch.as_tensor(index), x))
        self.field = PublishedField(adata.n_vars)
        self.optimizer = torch.optim.Adam(self.field.parameters(), lr=0.01)
        self.seconds: list[float] = []
        self.evaluations: list[int] = []

    def step(self) -> None:
        """One optimisation step, timed."""
        self.field.n_evaluations = 0
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = STRENGTH * self.field.penalty()
        for times, index, x in self.data:
            states = odeint(self.field, x[:N_FIRST].mean(0, keepdim=True), times, rtol=1e-3, atol=1e-3, method="dopri5")
            loss = loss + (states[index, 0] - x).square().mean()
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - start)
        self.evaluations.append(self.field.n_evaluations)

    def run(self, n_steps: int) -> None:
        """Several steps, on its own number of threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        for _ in range(n_steps):
            self.step()
        torch.set_num_threads(before)


class Alternate(Callback):
    """Times Lightning's loop, and runs a block of published steps after every block of ours."""

    def __init__(self, published: PublishedLoop, block: int, published_block: int) -> None:
        self.published, self.block, self.published_block = published, block, published_block
        self.loop: list[float] = []
        self.epochs: list[float] = []
        self.plan: TimedPlan
        self.threads: int
        self._last: float | None = None
        self._epoch_start: float | None = None

    def on_fit_start(self, trainer, pl_module) -> None:
        """Keep the plan, which holds the times of its steps."""
        self.plan = pl_module
        self.threads = torch.get_num_threads()

    def on_train_batch_end(self, trainer, *_) -> None:
        """Time since the end of the previous batch, if no epoch ended in between."""
        now = time.perf_counter()
        if self._last is not None:
            self.loop.append(now - self._last)
        self._last = now

    def on_train_epoch_start(self, trainer, _) -> None:
        """Between two epochs: time the last one, with its end and its validation, and let the published loop run."""
        now = time.perf_counter()
        if self._epoch_start is not None:
            self.epochs.append((now - self._epoch_start) / trainer.num_training_batches)
        if trainer.current_epoch > 0 and (trainer.current_epoch * trainer.num_training_batches) % self.block == 0:
            self.published.run(self.published_block)
        self._last = None
        self._epoch_start = time.perf_counter()


def compare(
    adata: anndata.AnnData, threads: int, gates: str, fields: str, n_strengths: int, n_seeds: int, options
) -> dict:
    """Train a model, the published loop in alternation, and return the times of both."""
    strengths = [STRENGTH] if n_strengths == 1 else np.geomspace(STRENGTH / 10, STRENGTH * 10, n_strengths).tolist()
    n_replicates = n_strengths * n_seeds
    torch.set_num_threads(threads)
    published = PublishedLoop(adata, threads)
    published.run(options.warm_up)
    published.seconds.clear()
    published.evaluations.clear()
    model = SparseNODE(adata, PathReg(strengths, gates=gates), HIDDEN, n_seeds, objective="trajectory", fields=fields)
    model._training_plan_cls = TimedPlan
    alternate = Alternate(published, options.block, options.published_block)
    model.train(
        max_epochs=options.block * options.blocks // options.steps_per_epoch,
        steps_per_epoch=options.steps_per_epoch,
        accelerator="cpu",
        key_added=None,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[alternate],
    )
    skip = options.block // 2  # warm-up
    step = 1000 * statistics.median(alternate.plan.seconds[skip:])
    loop = 1000 * statistics.median(alternate.loop[skip:])
    epoch = 1000 * statistics.mean(alternate.epochs[skip // options.steps_per_epoch :])
    reference = 1000 * statistics.median(published.seconds)
    return {
        "threads": threads,
        "step_threads": alternate.threads,
        "gates": gates,
        "fields": fields,
        "strengths": n_strengths,
        "seeds": n_seeds,
        "published_steps": len(published.seconds),
        "published_ms": reference,
        "published_evaluations": statistics.median(published.evaluations),
        "steps": len(alternate.plan.seconds) - skip,
        "step_ms": step,
        "step_ms_per_replicate": step / n_replicates,
        "loop_ms_per_replicate": loop / n_replicates,
        "epoch_ms_per_replicate": epoch / n_replicates,
        "times_faster_step": reference / (step / n_replicates),
        "times_faster_epoch": reference / (epoch / n_replicates),
    }


def parse() -> argparse.Namespace:
    """Command line."""
    parser = _common.parser(__doc__.splitlines()[0])
    _common.add_data_argument(parser)
    _common.add_donor_argument(parser)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[2, 1], help="torch threads: the published loop takes all"
    )
    parser.add_argument("--gates", nargs="+", default=["unit", "weight"], choices=["unit", "weight"])
    parser.add_argument("--fields", nargs="+", default=["shared", "lineage"], choices=["shared", "lineage"])
    parser.add_argument(
        "--replicates", nargs="+", default=["1x1", "16x1", "1x16"], help="strengths x seeds, one model each"
    )
    parser.add_argument("--blocks", type=int, default=10, help="blocks of steps of ours")
    parser.add_argument("--block", type=int, default=50, help="steps of ours in a block")
    parser.add_argument("--published-block", type=int, default=5, help="published steps after each block but the last")
    parser.add_argument("--warm-up", type=int, default=5, help="published steps before the first timed one")
    parser.add_argument("--steps-per-epoch", type=int, default=10)
    options = parser.parse_args()
    if options.quick:
        options.blocks, options.block, options.published_block, options.warm_up = 3, 20, 3, 2
    if options.block % options.steps_per_epoch or options.blocks < 2:
        parser.error("--block must be a multiple of --steps-per-epoch, and --blocks at least 2")
    bone_marrow.check_donors(parser, options.data, [options.donor], protocols=["paper"])
    return options


def main() -> None:
    options = parse()
    quiet()
    adata = _common.trajectories(_common.read_donor(options.data / "bone_marrow" / f"{options.donor}.h5ad"))
    SparseNODE.setup_anndata(adata, time_key=_common.TIME_KEY, lineage_key=_common.LINEAGE_KEY)
    rows = []
    for threads, gates, fields, replicates in product(
        options.threads, options.gates, options.fields, options.replicates
    ):
        n_strengths, n_seeds = (int(number) for number in replicates.split("x"))
        rows.append(compare(adata, threads, gates, fields, n_strengths, n_seeds, options))
        print(
            {key: round(value, 2) if isinstance(value, float) else value for key, value in rows[-1].items()}, flush=True
        )
    _common.save("speed", rows, options, genes=adata.n_vars, cells=adata.n_obs, hidden=HIDDEN, strength=STRENGTH)


if __name__ == "__main__":
    main()
