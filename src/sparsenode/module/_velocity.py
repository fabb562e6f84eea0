"""Many evaluations of one field, with the gradients of its parameters computed once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from sparsenode.module._field import Architecture, EffectiveWeights

# Of every evaluation: states, inputs of the layers, gradients in their outputs, gradient in the derivatives.
_Tape = list[tuple[torch.Tensor, Sequence[torch.Tensor], Sequence[torch.Tensor], torch.Tensor]]


class _Evaluate(torch.autograd.Function):
    """One evaluation. Its backward pass leaves what the gradients of the parameters need on the tape."""

    @staticmethod
    def forward(
        ctx: Any,
        tape: _Tape,
        architecture: Architecture,
        x: torch.Tensor,
        decay: torch.Tensor | None,
        skip: torch.Tensor | None,
        *parameters: torch.Tensor,
    ) -> Any:
        """The field at ``x``; the parameters are the weights of all layers, then the biases."""
        n = len(parameters) // 2
        weights, biases = parameters[:n], parameters[n:]
        inputs = [architecture.read(x)]
        for layer, (weight, bias) in enumerate(zip(weights[:-1], biases, strict=False)):
            h = torch.baddbmm(bias, inputs[-1], weight.mT)
            inputs.append(functional.elu(architecture.split(h) if layer == 0 else h))
        derivatives = torch.baddbmm(biases[-1], inputs[-1], weights[-1].mT)
        if n > 1:  # one layer is already evaluated for all targets together
            derivatives = architecture.merge(derivatives)
        if skip is not None:
            derivatives = torch.baddbmm(derivatives, inputs[0], skip.mT)
        ctx.tape, ctx.architecture, ctx.decay, ctx.skip = tape, architecture, decay, skip
        ctx.save_for_backward(x, *inputs, *weights)
        return derivatives if decay is None else derivatives.addcmul_(decay, architecture.top(x), value=-1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        """Gradient in the state."""
        x, *saved = ctx.saved_tensors
        n = len(saved) // 2
        architecture, inputs, weights = ctx.architecture, saved[:n], saved[n:]
        gradients = [architecture.split(gradient)]
        for layer in range(n - 1, 0, -1):
            below = torch.bmm(gradients[-1], weights[layer])
            gradients.append(torch.ops.aten.elu_backward(below, 1, 1, 1, True, inputs[layer]))
        gradients[-1] = architecture.merge(gradients[-1])
        ctx.tape.append((x, inputs, gradients[::-1], gradient))
        state = torch.bmm(gradients[-1], weights[0])
        if ctx.skip is not None:
            state = torch.baddbmm(state, gradient, ctx.skip)
        if architecture.inputs is not None:
            state = torch.zeros_like(x).index_add_(2, architecture.inputs, state)
        if ctx.decay is not None:
            architecture.top(state).addcmul_(ctx.decay, gradient, value=-1)
        return (None, None, state, None, None, *([None] * (2 * n)))


class _Gather(torch.autograd.Function):
    """Hands the parameters to all evaluations. Autograd calls its backward pass after theirs."""

    @staticmethod
    def forward(
        ctx: Any,
        tape: _Tape,
        architecture: Architecture,
        decay: torch.Tensor | None,
        skip: torch.Tensor | None,
        *parameters: torch.Tensor,
    ) -> Any:
        """Views of the parameters."""
        ctx.tape, ctx.architecture = tape, architecture
        ctx.has_decay, ctx.has_skip = decay is not None, skip is not None
        ctx.set_materialize_grads(False)
        return tuple(None if p is None else p.view_as(p) for p in (decay, skip, *parameters))

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Gradients in the parameters: one product a layer over the points of all evaluations."""
        states, layers, layer_gradients, outputs = zip(*ctx.tape, strict=True)
        inputs = [torch.cat(points, 1) for points in zip(*layers, strict=True)]
        gradients = [torch.cat(points, 1) for points in zip(*layer_gradients, strict=True)]
        # Where nothing is rearranged, these are the ends of the two lists above.
        output = torch.cat(outputs, 1) if ctx.architecture.per_target else gradients[-1]
        decay = None
        if ctx.has_decay:
            state = inputs[0] if ctx.architecture.inputs is None else torch.cat(states, 1)
            decay = -(output * ctx.architecture.top(state)).sum(1, keepdim=True)
        ctx.tape.clear()
        skip = torch.bmm(output.mT, inputs[0]) if ctx.has_skip else None
        weights = [torch.bmm(g.mT, x) for g, x in zip(gradients, inputs, strict=True)]
        return (None, None, decay, skip, *weights, *(g.sum(1, keepdim=True) for g in gradients))


def velocity(effective: EffectiveWeights) -> Callable[[torch.Tensor], torch.Tensor]:
    """Derivative of the state as a function of the state alone, for solves: that of :meth:`Field.evaluate`.

    A solve evaluates the field some twenty times on a few points each. Were every evaluation differentiated by itself,
    most of the time would go into adding up gradients of the size of the weights; here one product over all points
    does it. Results are the same up to rounding. The graph can be differentiated once. In second order the
    derivatives of the variables are their velocities, which are part of the state.
    """
    tape: _Tape = []
    architecture = effective.architecture
    inner = effective.skip if architecture.skip == "inner" else None
    decay, skip, *parameters = _Gather.apply(
        tape, architecture, effective.decay, inner, *effective.layers, *effective.layer_biases
    )

    def top(x: torch.Tensor) -> torch.Tensor:
        return _Evaluate.apply(tape, architecture, x, decay, skip, *parameters)

    return top if architecture.order == 1 else lambda x: torch.cat([architecture.top(x), top(x)], -1)


def saturating(
    field: Callable[[torch.Tensor], torch.Tensor], decay: torch.Tensor | None, reach: tuple[torch.Tensor, torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A first-order field whose regulators act beyond the reach as at its ends; the decay goes on.

    Parameters
    ----------
    field
        Maps states to derivatives, with the decay.
    decay
        Its decay rates, networks × 1 × variables, or ``None``.
    reach
        Lowest and highest states, each networks × 1 × variables.
    """

    def saturated(x: torch.Tensor) -> torch.Tensor:
        held = torch.clamp(x, *reach)
        return field(held) if decay is None else field(held) - decay * (x - held)

    return saturated
