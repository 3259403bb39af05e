"""Blocks of transformers: with a norm before each part (ViT, CLIP, SigLIP), or after it (BERT, RoBERTa, ERNIE).

Parameters have the names that PaddleClas's ViT and PaddleNLP's ERNIE and BERT give them, so that all files of weights
fit either implementation. Dropout draws in the same order.
"""

import math
from collections.abc import Callable

import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.device.cpu_kernels import together

MASKED = -1e4  # what is added to the score of a token that attention must not see; float16 holds it


def gelu_tanh(x: paddle.Tensor) -> paddle.Tensor:
    """GELU by tanh. A graph has it written out, as paddle2onnx takes every GELU for the exact one."""
    if paddle.in_dynamic_mode():
        return F.gelu(x, approximate=True)
    return 0.5 * x * (1 + paddle.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def quick_gelu(x: paddle.Tensor) -> paddle.Tensor:
    """The activation of OpenAI's CLIP and of the released models."""
    return x * F.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[paddle.Tensor], paddle.Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
}


class Attention(nn.Layer):
    """Self-attention. A kind says by its layers how the projections of a token are stored.

    Where it is `fused`, Paddle's kernel computes it, which on GPUs never holds the `L x L` weights and draws dropout by
    itself; None: on a GPU, where there is no dropout.
    """

    def __init__(self, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.fused: bool | None = None

    def by_head(self, x: paddle.Tensor, parts: int = 1) -> list[paddle.Tensor]:
        """`[B, L, parts * width]` to each part by head, `[B, heads, L, d]`."""
        x = x.reshape([0, 0, parts, self.heads, x.shape[2] // (parts * self.heads)])
        return x.transpose([2, 0, 3, 1, 4]).unbind(0)

    def attend(self, q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, mask: paddle.Tensor | None) -> paddle.Tensor:
        """Queries `[B, heads, L, d]`, keys and values `[B, heads, M, d]` to `[B, L, width]`.

        `mask` is added to the scores, `[B or 1, 1, L or 1, M]`.
        """
        dropout = self.dropout if self.training else 0.0
        fused = self.fused
        if fused is None:
            fused = paddle.in_dynamic_mode() and q.place.is_gpu_place() and not dropout
        if fused:
            if mask is not None:
                mask = mask.astype(q.dtype).expand([q.shape[0], 1, q.shape[2], k.shape[2]])
            q, k, v = (x.transpose([0, 2, 1, 3]) for x in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, training=self.training)
            return mixed.flatten(2)
        scores = paddle.matmul(q * q.shape[-1] ** -0.5, k, transpose_y=True)
        weights = F.softmax(scores if mask is None else scores + mask.astype(scores.dtype))
        if dropout:
            weights = F.dropout(weights, dropout)
        return paddle.matmul(weights, v).transpose([0, 2, 1, 3]).flatten(2)


class PackedAttention(Attention):
    """One matrix holds the projections to queries, keys and values side by side, as in PaddleClas's ViT."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__(heads, dropout)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor | None = None) -> paddle.Tensor:
        q, k, v = self.by_head(self.qkv(x), parts=3)
        return self.proj(self.attend(q, k, v, mask))


class SplitAttention(Attention):
    """Each projection is a layer of its own, as in PaddleNLP's encoders; in training one product computes all three."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__(heads, dropout)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor | None = None) -> paddle.Tensor:
        layers = self.q_proj, self.k_proj, self.v_proj
        packed = together(layers) if self.training else None
        if packed is None:
            q, k, v = (self.by_head(layer(x))[0] for layer in layers)
        else:
            q, k, v = self.by_head(packed(x), parts=3)
        return self.out_proj(self.attend(q, k, v, mask))


class Mlp(nn.Layer):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, hidden: int, activation: str):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class DropPath(nn.Layer):
    """Stochastic depth (Huang et al. 2016): leaves a residual branch out, row by row."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not self.training:
            return x
        kept = paddle.floor(1 - self.rate + paddle.rand([x.shape[0], *[1] * (x.ndim - 1)]).astype(x.dtype))
        return x * (kept / (1 - self.rate))


class PreNormBlock(nn.Layer):
    """Attention and MLP, each after a LayerNorm of what it is given (ViT, CLIP, SigLIP).

    `drop_path` leaves a whole branch out, `dropout` numbers of what it adds, `attention` attention weights. The
    published models of this kind have none of them.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: str,
        epsilon: float,
        *,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        attention: float = 0.0,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.attn = PackedAttention(width, heads, attention)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.mlp = Mlp(width, hidden, activation)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor | None = None) -> paddle.Tensor:
        x = x + self.drop_path(self.dropout(self.attn(self.norm1(x), mask)))
        return x + self.drop_path(self.dropout(self.mlp(self.norm2(x))))


class PostNormBlock(nn.Layer):
    """Attention and MLP, each before a LayerNorm of its sum with what it was given (BERT, RoBERTa, ERNIE)."""

    def __init__(
        self, width: int, heads: int, hidden: int, activation: str, epsilon: float, dropout: float, attention: float
    ):
        super().__init__()
        self.self_attn = SplitAttention(width, heads, attention)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.activation, self.dropout = ACTIVATIONS[activation], nn.Dropout(dropout)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor | None = None) -> paddle.Tensor:
        x = self.norm1(x + self.dropout(self.self_attn(x, mask)))
        return self.norm2(x + self.dropout(self.linear2(self.activation(self.linear1(x)))))


def for_each(token: paddle.Tensor, tokens: paddle.Tensor) -> paddle.Tensor:
    """`[1, 1, D]` to `[B, 1, D]` for `[B, L, D]` tokens; B may be unknown, as in a traced graph."""
    return paddle.zeros_like(tokens[:, :1]) + token


class AttentionPool(Attention):
    """One learned query attends to all tokens; an MLP follows (SigLIP, Zhai et al. 2023)."""

    def __init__(self, width: int, heads: int, hidden: int, activation: str, epsilon: float):
        super().__init__(heads)
        self.probe = self.create_parameter([1, 1, width], default_initializer=nn.initializer.TruncatedNormal(std=0.02))
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, epsilon)
        self.mlp = Mlp(width, hidden, activation)

    def forward(self, tokens: paddle.Tensor, mask: paddle.Tensor | None = None) -> paddle.Tensor:
        (query,), (k, v) = self.by_head(for_each(self.q(self.probe), tokens)), self.by_head(self.kv(tokens), parts=2)
        pooled = self.proj(self.attend(query, k, v, mask))
        return (pooled + self.mlp(self.norm(pooled))).squeeze(1)


class Transformer(nn.Layer):
    """The parts that both towers share."""

    def fuse_attention(self, fused: bool = True) -> None:
        """Whether attention is left to Paddle's kernel of the device, which draws its dropout by itself.

        Without dropout the features are the same to rounding.
        """
        for layer in self.sublayers():
            if isinstance(layer, Attention):
                layer.fused = fused

    def initialise(self, width: int, kind: Callable[..., nn.initializer.Initializer], embeddings: float = 0.02) -> None:
        """Draws the weights of the layers once more; Paddle draws them when it makes a layer.

        The libraries' deviation of 0.02 belongs to width 768: a narrow tower's layers would hardly pass a signal on.
        """
        for layer in self.sublayers():
            if isinstance(layer, nn.Linear | nn.Embedding):
                linear = isinstance(layer, nn.Linear)
                kind(std=0.02 * (768 / width) ** 0.5 if linear else embeddings)(layer.weight)
