"""Parts of transformers around attention: MLPs, blocks and pooling by attention."""

import paddle
from paddle import nn

from ernie_vil2.towers.layers.activations import ACTIVATIONS, compute_mlp
from ernie_vil2.towers.layers.attention import Attention, FusedQkvAttention, SplitAttention


class Mlp(nn.Layer):
    """Two linear layers with an activation in between."""

    def __init__(self, width: int, hidden: int, activation: str):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return compute_mlp(x, self.fc1, self.activation, self.fc2)


class SwiGlu(nn.Layer):
    """MLP with a gate (Shazeer 2020, arXiv 2002.05202) and a LayerNorm before its last layer, as in EVA-02."""

    def __init__(self, width: int, hidden: int, activation: str, epsilon: float):
        super().__init__()
        self.gate, self.fc1 = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden, epsilon)
        self.fc2 = nn.Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc2(self.norm(self.activation(self.gate(x)) * self.fc1(x)))


class DropPath(nn.Layer):
    """Stochastic depth (Huang et al. 2016): drops a residual branch, for each row of the batch independently."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not self.training:
            return x
        # Drawn in float32, also for inputs of 16 bits: random numbers that were rounded to bfloat16 kept 0.2
        # percentage points more branches.
        keep_mask = paddle.rand([x.shape[0]] + [1] * (x.ndim - 1)) >= self.rate
        return x * keep_mask.astype(x.dtype) / (1 - self.rate)


class PreNormBlock(nn.Layer):
    """Transformer block with LayerNorms before attention and MLP (ViT, CLIP, SigLIP).

    Args:
        width: width of the tokens.
        heads: number of attention heads.
        hidden: width of the MLP's hidden layer.
        activation: activation of the MLP.
        epsilon: epsilon of the LayerNorms.
        drop_path: probability of dropping a whole residual branch; 0 in all published models.
        dropout: dropout of what a branch adds; 0 in all published models.
        attention_dropout: dropout of the attention weights; 0 in all published models.
        mlp: kind of the MLP; see `ImageVariant`.
        key_bias: whether the keys have a bias.
        attention_norm: whether attention has a LayerNorm before its last layer.
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
        attention_dropout: float = 0.0,
        mlp: str = "plain",
        key_bias: bool = True,
        attention_norm: bool = False,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, epsilon)
        norm_epsilon = epsilon if attention_norm else None
        self.attn: Attention
        if key_bias and not attention_norm:
            self.attn = FusedQkvAttention(width, heads, attention_dropout)
        else:
            self.attn = SplitAttention(width, heads, attention_dropout, key_bias, norm_epsilon)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.mlp: nn.Layer
        if mlp == "swiglu":
            self.mlp = SwiGlu(width, hidden, activation, epsilon)
        else:
            self.mlp = Mlp(width, hidden, activation)

    def forward(
        self,
        x: paddle.Tensor,
        mask: paddle.Tensor | None = None,
        rope: paddle.Tensor | None = None,
        only_first: bool = False,
    ) -> paddle.Tensor:
        """Compute the block.

        Args:
            x: tokens `[B, L, width]`, or packed ones `[T, width]`.
            mask: see `Attention.attend`.
            rope: cosines and sines of rotary positions, see `apply_rope`; None: there are no such positions.
            only_first: compute the result of the first token only, `[B, 1, width]`, with the other tokens as keys and
                values; neither with packed tokens nor with a causal mask. The first token gets the dropout mask that
                it has if all tokens are computed.
        """
        attended = self.attn(self.norm1(x), mask, rope, only_first)
        x = (x[:, :1] if only_first else x) + self.drop_path(self.dropout(attended))
        return x + self.drop_path(self.dropout(self.mlp(self.norm2(x))))


class PostNormBlock(nn.Layer):
    """Transformer block with LayerNorms after the residual sums of attention and MLP (BERT, RoBERTa, ERNIE).

    Arguments are those of `PreNormBlock`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: str,
        epsilon: float,
        dropout: float,
        attention_dropout: float,
    ):
        super().__init__()
        self.self_attn = SplitAttention(width, heads, attention_dropout)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.activation, self.dropout = ACTIVATIONS[activation], nn.Dropout(dropout)

    def forward(
        self, x: paddle.Tensor, mask: paddle.Tensor | None = None, *, only_first: bool = False
    ) -> paddle.Tensor:
        """Compute the block; arguments are those of `PreNormBlock`."""
        attended = self.self_attn(x, mask, only_first=only_first)
        x = self.norm1((x[:, :1] if only_first else x) + self.dropout(attended))
        return self.norm2(x + self.dropout(compute_mlp(x, self.linear1, self.activation, self.linear2)))


def repeat_for_batch(token: paddle.Tensor, tokens: paddle.Tensor) -> paddle.Tensor:
    """Repeat a token `[1, 1, D]` for the batch of `[B, L, D]` tokens: `[B, 1, D]`."""
    # Not by `expand`: a traced graph does not know B.
    return paddle.zeros_like(tokens[:, :1]) + token


class AttentionPool(Attention):
    """Pooling by a learned query that attends to all tokens, followed by an MLP (SigLIP, Zhai et al. 2023)."""

    def __init__(self, width: int, heads: int, hidden: int, activation: str, epsilon: float):
        super().__init__(heads)
        self.probe = self.create_parameter([1, 1, width], default_initializer=nn.initializer.TruncatedNormal(std=0.02))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, epsilon)
        self.mlp = Mlp(width, hidden, activation)

    def forward(self, tokens: paddle.Tensor, mask: paddle.Tensor | None = None) -> paddle.Tensor:
        (query,) = self.split_heads(repeat_for_batch(self.q(self.probe), tokens))
        k, v = self.split_heads(self.kv(tokens), num_projections=2)
        pooled = self.proj(self.attend(query, k, v, mask))  # [B, 1, width]
        return (pooled + self.mlp(self.norm(pooled))).squeeze(1)
