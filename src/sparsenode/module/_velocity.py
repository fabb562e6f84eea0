"""Many evaluations of one field, with the gradients of its parameters computed once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from sparsenode.module._field import EffectiveWeights

_Tape = list[tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]]


class _Evaluate(torch.autograd.Function):
    """One evaluation. Its backward pass leaves what the gradients of the parameters need on the tape."""

    @staticmethod
    def forward(ctx: Any, tape: _Tape, x: torch.Tensor, decay: torch.Tensor | None, *parameters: torch.Tensor) -> Any:
        """Derivatives at ``x``; the parameters are the weights of all layers, then the biases."""
        n = len(parameters) // 2
        weights, biases = parameters[:n], parameters[n:]
        inputs = [x]
        for weight, bias in zip(weights[:-1], biases, strict=False):
            inputs.append(functional.elu(torch.baddbmm(bias, inputs[-1], weight.mT)))
        derivatives = torch.baddbmm(biases[-1], inputs[-1], weights[-1].mT)
        ctx.tape, ctx.decay = tape, decay
        ctx.save_for_backward(*inputs, *weights)
        return derivatives if decay is None else derivatives.addcmul_(decay, x, value=-1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        """Gradient in the state."""
        n = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        gradients = [gradient]
        for layer in range(n - 1, 0, -1):
            below = torch.bmm(gradients[-1], weights[layer])
            gradients.append(torch.ops.aten.elu_backward(below, 1, 1, 1, True, inputs[layer]))
        ctx.tape.append((inputs, gradients[::-1]))
        state = torch.bmm(gradients[-1], weights[0])
        if ctx.decay is not None:
            state.addcmul_(ctx.decay, gradient, value=-1)
        return (None, state, None, *([None] * (2 * n)))


class _Gather(torch.autograd.Function):
    """Hands the parameters to all evaluations. Autograd calls its backward pass after theirs."""

    @staticmethod
    def forward(ctx: Any, tape: _Tape, decay: torch.Tensor | None, *parameters: torch.Tensor) -> Any:
        """Views of the parameters."""
        ctx.tape, ctx.has_decay = tape, decay is not None
        ctx.set_materialize_grads(False)
        return (None if decay is None else decay.view_as(decay), *(p.view_as(p) for p in parameters))

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Gradients in the parameters: one product a layer over the points of all evaluations."""
        inputs = [torch.cat(points, 1) for points in zip(*(i for i, _ in ctx.tape), strict=True)]
        gradients = [torch.cat(points, 1) for points in zip(*(g for _, g in ctx.tape), strict=True)]
        ctx.tape.clear()
        decay = -(gradients[-1] * inputs[0]).sum(1, keepdim=True) if ctx.has_decay else None
        weights = [torch.bmm(g.mT, x) for g, x in zip(gradients, inputs, strict=True)]
        return (None, decay, *weights, *(g.sum(1, keepdim=True) for g in gradients))


def velocity(effective: EffectiveWeights) -> Callable[[torch.Tensor], torch.Tensor]:
    """:meth:`Field.evaluate` as a function of the state alone, for solves.

    A solve evaluates the field some twenty times on a few points each. Were every evaluation differentiated by itself,
    most of the time would go into adding up gradients of the size of the weights; here one product over all points
    does it. Results are the same up to rounding. The graph can be differentiated once.
    """
    tape: _Tape = []
    decay, *parameters = _Gather.apply(tape, effective.decay, *effective.weights, *effective.biases)
    return lambda x: _Evaluate.apply(tape, x, decay, *parameters)
