"""Recomputation: the blocks of both towers keep only their inputs for backward, and run a second time there."""

from collections.abc import Callable
from contextvars import copy_context

import paddle
from paddle import nn
from paddle.distributed.fleet.utils import recompute

from ernie_vil2.models import DualEncoder
from ernie_vil2.tasks.dropout import CounterBasedDropout


def recompute_blocks(model: DualEncoder, dropout: CounterBasedDropout) -> None:
    """Makes the blocks of a dual encoder's towers recompute themselves in backward, in place.

    Blocks are a transformer's layers, or the repeated parts of a convolutional network; see the towers' `blocks`.
    The second run draws the same dropout. In evaluation, and without gradient, nothing changes.

    Args:
        dropout: what the model draws from.
    """
    for tower in (model.image, model.text):
        for block in tower.blocks:
            # Past `__setattr__`: PaddleNLP puts a wrapper of its own around a forward that is set on its layers.
            block.__dict__["forward"] = _recomputing(block, block.forward, dropout)


def _recomputing(block: nn.Layer, forward: Callable, dropout: CounterBasedDropout) -> Callable:
    def recomputing(*args, **kwargs):
        if not (block.training and paddle.is_grad_enabled()):
            return forward(*args, **kwargs)
        # The second run is in backward, where what was set for the first is over: what of the texts is padding, too.
        state, context, again = dropout.state, copy_context(), False

        def run(*inputs, **options):
            nonlocal again
            if not again:
                again = True
                return forward(*inputs, **options)
            with dropout.replay(state):
                return context.run(forward, *inputs, **options)

        # By hooks, not re-entrant: a first block's images need no gradient, its parameters do.
        return recompute(run, *args, preserve_rng_state=False, use_reentrant=False, **kwargs)

    return recomputing
