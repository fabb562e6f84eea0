"""Starts in training: means of resampled early cells, and with noise."""

from __future__ import annotations

import numpy as np
import torch

from sparsenode.module._random_start import bootstrapped_start, noisy_start


def test_bootstrapped_starts_are_means_of_resampled_early_cells(problem, make_module):
    n = 600
    module = make_module(seeds=range(n), fields="shared", hidden=(1,), bootstrap=True).train()
    start = bootstrapped_start(module, problem.tensors(9)).numpy()
    assert start.shape == (n, 3, 4)
    for m, early in enumerate(problem.early):
        # A mean with exponential weights has variance s^2 / (k + 1) for k cells with population variance s^2.
        sd = early.std(0) / np.sqrt(len(early) + 1)
        np.testing.assert_allclose(start[:, m].mean(0), problem.initial_state[m], atol=4.5 * sd.max() / np.sqrt(n))
        np.testing.assert_allclose(start[:, m].std(0), sd, rtol=0.1)


def test_without_bootstrap_training_starts_at_the_initial_state(problem, make_module):
    module = make_module(bootstrap=False).train()
    assert torch.equal(bootstrapped_start(module, problem.tensors(9)), module.initial_state.unsqueeze(0))


def test_noise_on_a_start_is_not_passed_on_to_its_velocity(make_module):
    """The network gives the velocity of the start itself; the velocity has a noise of its own."""
    module = make_module(order=2, start_noise=0.3).train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.initial_velocity.parameters():
            parameter.normal_(generator=generator)
    module.seed_generators()
    with torch.no_grad():
        start, speed = noisy_start(module, module.start())
        expected = module.network_velocity(module.start(), module.lineages)
    draw = torch.empty(2, *module.initial_state.shape).normal_(generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(start, module.initial_state + 0.3 * draw[[0]])
    torch.testing.assert_close(speed, expected + 0.3 * draw[[1]])
