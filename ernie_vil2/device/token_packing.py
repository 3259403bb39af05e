"""Skip the padding of texts: inside `skip_padding`, layers compute on packed tokens `[T, D]`, not on `[B, L, D]`.

All texts of a batch have the length of the longest: if captions and tags are mixed, more than half of a batch is
padding. Attention and pooling mask it, so features and gradients without it are equal to rounding.

Texts are packed on CPUs, and on GPUs for flash attention outside of training.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.nn import functional as F

from ernie_vil2.device import runtime


class TokenLayout(NamedTuple):
    """Places of the T tokens in a batch of texts `[B, L]`, row by row.

    Attributes:
        rows: int64 `[T]`, rows of the tokens in the flattened batch.
        num_texts: B.
        length: L.
        boundaries: int32 `[B + 1]`, for attention by text: the tokens of text i are those from `boundaries[i]` up to
            `boundaries[i + 1]`; None: attention takes padded texts.
    """

    rows: Tensor
    num_texts: int
    length: int
    boundaries: Tensor | None


class TextBoundaries(NamedTuple):
    """Where packed texts begin and end, for attention by text.

    Attributes:
        boundaries: see `TokenLayout`.
        padded_length: L, at least the number of tokens of the longest text.
    """

    boundaries: Tensor
    padded_length: int


# Layout of the texts whose padding is skipped; None: padding is computed like tokens.
_layout: ContextVar[TokenLayout | None] = ContextVar("layout", default=None)


def skip_padding(ids: Tensor, padding: int, by_text: bool = False) -> AbstractContextManager[None]:
    """Return a context manager in which texts are encoded without their padding.

    Layers that run on the result of `pack` skip it. On CPUs, attention takes padded texts, and linear layers
    (`CpuLinear`) skip their padding, too, where gradients are needed. On GPUs padding is skipped only with `by_text`,
    which makes the host wait for the number of tokens.

    Args:
        ids: `[B, L]`, token ids of the texts; inputs of layers with three axes must be `[B, L, D]`.
        padding: id of the padding.
        by_text: whether attention, too, takes packed tokens and the boundaries of the texts. Only GPUs have a kernel
            for that.
    """
    if by_text or runtime.uses_cpu_layers(ids):
        return _skip_padding(ids, padding, by_text)
    return nullcontext()


@contextmanager
def _skip_padding(ids: Tensor, padding: int, by_text: bool) -> Iterator[None]:
    is_token = ids != padding
    rows = paddle.nonzero(is_token.reshape([-1])).squeeze(1)
    boundaries = None
    if by_text:
        ends = is_token.astype("int32").sum(axis=1).cumsum()
        boundaries = F.pad(ends, [1, 0]).astype("int32")
    layout = None
    # Without padding there is nothing to skip, and layers cannot compute texts without tokens.
    if 0 < rows.shape[0] < ids.size:
        layout = TokenLayout(rows, ids.shape[0], ids.shape[1], boundaries)
    reset_token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(reset_token)


def get_layout() -> TokenLayout | None:
    """Return the layout of the texts whose padding is skipped; None outside of `skip_padding`."""
    return _layout.get()


def get_packed_layout(shape: Sequence[int]) -> TokenLayout | None:
    """Return the layout if `shape` is `[T, D]`, that of packed tokens; else None."""
    layout = _layout.get()
    is_packed = layout is not None and len(shape) == 2 and shape[0] == layout.rows.shape[0]
    return layout if is_packed else None


def get_text_boundaries() -> TextBoundaries | None:
    """Return the boundaries of packed texts if attention takes packed tokens; else None."""
    layout = _layout.get()
    if layout is None or layout.boundaries is None:
        return None
    return TextBoundaries(layout.boundaries, layout.length)


def pack(x: Tensor) -> Tensor:
    """Return the tokens `[T, ...]` of `[B, L, ...]` inside `skip_padding`; `x` itself elsewhere."""
    layout = _layout.get()
    return x if layout is None else _Pack.apply(x, layout)


def unpack(tokens: Tensor) -> Tensor:
    """Put packed tokens `[T, D]` back to `[B, L, D]`, with zeros as padding; return other tokens unchanged."""
    layout = _layout.get()
    return tokens if layout is None else _Unpack.apply(tokens, layout)


class _Pack(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: TokenLayout) -> Tensor:
        ctx.layout = layout
        return paddle.gather(x.flatten(0, 1), layout.rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return scatter_tokens(gradient, ctx.layout.rows, [ctx.layout.num_texts, ctx.layout.length])


class _Unpack(PyLayer):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, layout: TokenLayout) -> Tensor:
        ctx.layout = layout
        return scatter_tokens(tokens, layout.rows, [layout.num_texts, layout.length])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return paddle.gather(gradient.flatten(0, 1), ctx.layout.rows)


def scatter_tokens(tokens: Tensor, token_rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Put tokens `[T, D]` into their rows of a tensor `[B, L, D]` with zeros elsewhere; `shape` begins with B, L."""
    zeros = paddle.zeros([shape[0] * shape[1], tokens.shape[1]], tokens.dtype)
    return paddle.scatter_(zeros, token_rows, tokens).reshape([*shape[:2], tokens.shape[1]])
