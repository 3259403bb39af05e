"""Transformers as towers, and their blocks: with a norm before each part (ViT, CLIP, SigLIP) or after it (BERT, ERNIE).

Parameters have the names that PaddleClas's ViT and PaddleNLP's ERNIE and BERT give them, so that all files of weights
fit either implementation. Dropout draws in the same order.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.device.cpu_kernels import together, tokens_alone
from ernie_vil2.towers.base import ImageVariant, TextTowerConfig, TextVariant

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


PAD_ID = 0


class VisionTransformer(Transformer):
    """`[B, 3, S, S]` images to `[B, width]`: square patches through pre-norm blocks.

    An image has as many whole patches as fit into it. Pixels right of and below the last ones are not used, as in
    SigLIP So400m/14 at 384 pixels, which sees 27 x 27 patches.

    By default it is the released models' ViT: CLIP's, with the epsilon of ViT and without a projection. `ImageVariant`
    says what else it can be.

    Attributes:
        width: of the features.
        blocks: first to last.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        drop_path: float = 0.0,
        variant: ImageVariant | None = None,
    ):
        super().__init__()
        variant = variant or ImageVariant()
        epsilon = variant.epsilon
        self.width, self.pooling = width, variant.pooling
        self.image_size, self.patch_size = image_size, patch_size
        block = width, heads, variant.hidden or 4 * width, variant.activation, epsilon
        bias = None if variant.patch_bias else False
        if variant.patches == "linear":
            embed: nn.Linear | nn.Conv2D = nn.Linear(3 * patch_size**2, width, bias_attr=bias)
        else:
            embed = nn.Conv2D(3, width, patch_size, stride=patch_size, bias_attr=bias)
        self.patch_embed = nn.LayerDict({"proj": embed})
        zero, tokens = nn.initializer.Constant(0.0), (image_size // patch_size) ** 2 + variant.class_token
        self.cls_token = self.create_parameter([1, 1, width], default_initializer=zero) if variant.class_token else None
        self.pos_embed = self.create_parameter([1, tokens, width], default_initializer=zero)
        paddle.randn([width, 512])  # as PaddleClas draws a projection here, which the tower does not have
        self.ln_pre = nn.LayerNorm(width, epsilon) if variant.input_norm else nn.Identity()
        rates = np.linspace(0, drop_path, depth)
        self.blocks = nn.LayerList(PreNormBlock(*block, drop_path=rate) for rate in rates)
        self.norm = nn.LayerNorm(width, epsilon)
        self.attn_pool = AttentionPool(*block) if variant.pooling == "attention" else None
        for parameter in (self.pos_embed, self.cls_token):
            if parameter is not None:
                nn.initializer.TruncatedNormal(std=0.02)(parameter)
        self.initialise(width, nn.initializer.TruncatedNormal)

    @paddle.jit.not_to_static  # traced as it is: no control flow depends on a tensor
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_size(images.shape[2], images.shape[3], self.image_size)
        tokens = self.embed(cut_to_patches(images, self.image_size, self.patch_size))
        if self.cls_token is not None:
            tokens = paddle.concat([for_each(self.cls_token, tokens), tokens], axis=1)
        return self.encode(tokens + self.pos_embed)

    def embed(self, images: paddle.Tensor) -> paddle.Tensor:
        """`[B, 3, H, W]`, of whole patches, to them, row by row, `[B, P, width]`."""
        embed, size = self.patch_embed["proj"], self.patch_size
        if isinstance(embed, nn.Conv2D):
            return embed(images).flatten(2).transpose([0, 2, 1])
        rows, columns = self.grid(images)
        patches = images.reshape([-1, 3, rows, size, columns, size]).transpose([0, 2, 4, 3, 5, 1])
        return embed(patches.reshape([-1, rows * columns, 3 * size**2]))

    def grid(self, images: paddle.Tensor) -> list[Any]:
        """Rows and columns of patches; scalars where a traced graph knows the size only when it runs."""
        known = min(images.shape[2:]) > 0
        sizes = images.shape[2:] if known else paddle.shape(images)[2:].unbind(0)
        return [length // self.patch_size for length in sizes]

    def encode(self, tokens: paddle.Tensor, mask: paddle.Tensor | None = None) -> paddle.Tensor:
        """Tokens with their positions, `[B, T, width]`, to features; `mask` is `MASKED` for padding, `[B, 1, 1, T]`."""
        tokens = self.ln_pre(tokens)
        for block in self.blocks:
            tokens = block(tokens, mask)
        if self.pooling == "class":
            return self.norm(tokens[:, 0])
        if self.attn_pool is not None:
            return self.attn_pool(self.norm(tokens), mask)
        return self.norm(tokens)[:, int(self.cls_token is not None) :].mean(axis=1)


class NaFlexTransformer(VisionTransformer):
    """A ViT for images of any shape: `[B, 3, H, W]`, H and W of whole patches, to `[B, width]`.

    The position embedding is resized to each, as in SigLIP 2 NaFlex (Tschannen et al. 2025, arXiv 2502.14786) and
    FG-CLIP 2.

    Images of one batch have one shape: the authors pad images of several shapes to one number of patches, and mask the
    padding wherever it could be seen, so that an image's features are the same by itself. `image_size` is the side of
    the square whose patches have the learned positions; there is no class token.
    """

    @paddle.jit.not_to_static
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_patches(images.shape[2], images.shape[3], self.patch_size)
        return self.encode(self.embed(images) + self.positions(*self.grid(images)))

    def positions(self, rows: int | paddle.Tensor, columns: int | paddle.Tensor) -> paddle.Tensor:
        """The position embedding for a grid of patches, whose sides a traced graph has as tensors,
        `[1, rows * columns, width]`."""
        side = self.image_size // self.patch_size
        grid = self.pos_embed.reshape([side, side * self.width])
        grid = paddle.matmul(_resizing(rows, side, grid), grid).reshape([rows, side, self.width])
        return paddle.matmul(_resizing(columns, side, grid), grid).reshape([1, -1, self.width])


class TextTransformer(Transformer):
    """`[B, L]` token ids to `[B, width]`: a transformer with learned positions, and features for the whole text.

    ERNIE and BERT are encoders as the released models have them, in which padding changes no feature.

    Args:
        config: whose pooling is of the first token through a linear layer and tanh (cls), the mean over all tokens but
            padding, or the state of the first token, of the first one of the id `variant.end` (end), of the largest id
            (largest), or of the last position (last).
        vocab_size: number of tokens.
        variant: what the family does differently.
        epsilon: of the LayerNorms.

    Attributes:
        width: of the features.
        blocks: first to last.
    """

    def __init__(self, config: TextTowerConfig, vocab_size: int, variant: TextVariant, epsilon: float):
        super().__init__()
        width, depth = config.sizes["width"], config.sizes["depth"]
        self.width, self.first_position = variant.head or width, variant.first_position
        self.longest = config.max_positions - variant.first_position
        self.mask, self.padding, self.pooling, self.end = variant.mask, variant.padding, config.pooling, variant.end
        sizes = width, config.sizes["heads"], variant.hidden or 4 * width, variant.activation, epsilon
        dropout: dict[str, Any] = {"dropout": config.dropout, "attention": config.attention_dropout}
        embeddings: dict[str, nn.Layer] = {"word_embeddings": nn.Embedding(vocab_size, width)}
        embeddings["position_embeddings"] = nn.Embedding(config.max_positions, width)
        if variant.token_types:
            embeddings["token_type_embeddings"] = nn.Embedding(variant.token_types, width)
        if variant.norm == "after":
            embeddings["layer_norm"] = nn.LayerNorm(width, epsilon)
        kind = PostNormBlock if variant.norm == "after" else PreNormBlock
        blocks = [kind(*sizes, **dropout) for _ in range(depth)]
        parts: dict[str, nn.Layer] = {"embeddings": nn.LayerDict(embeddings)}
        parts["encoder"] = nn.LayerDict({"layers": nn.LayerList(blocks)})
        if variant.norm == "before":
            parts["norm"] = nn.LayerNorm(width, epsilon)
        parts["pooler"] = nn.LayerDict({"dense": nn.Linear(width, width)})
        self.network: Any = nn.LayerDict(parts)  # of LayerDicts
        self.dropout = nn.Dropout(config.dropout)
        self.head_norm = nn.LayerNorm(width, epsilon) if variant.head_norm else None
        self.head = nn.Linear(width, variant.head) if variant.head else None
        # The sum of the embeddings is normalised, so that their scale only says how far a step of Adam, whose length is
        # given, turns them. Smaller ones let a small tower learn its words in fewer steps.
        self.initialise(width, nn.initializer.Normal, 0.02 if width >= 768 else 0.005)
        if config.pooling != "cls":
            del self.network["pooler"]  # PaddleNLP draws it in any case

    @property
    def blocks(self) -> list[nn.Layer]:
        return list(self.network["encoder"]["layers"])

    @paddle.jit.not_to_static
    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        check_length(ids.shape[1], self.longest)
        with tokens_alone(ids, self.padding) if self.mask == "padding" else nullcontext():
            states, mask = self._embedded(ids), self._masked(ids)
            for block in self.blocks:
                states = block(states, mask)
            if "norm" in self.network:
                states = self.network["norm"](states)
            features = self._pooled(states, ids)
        if self.head_norm is not None:
            features = self.head_norm(features)
        return features if self.head is None else self.head(features)

    def _embedded(self, ids: paddle.Tensor) -> paddle.Tensor:
        embeddings = self.network["embeddings"]
        states = embeddings["word_embeddings"](ids)
        states = states + embeddings["position_embeddings"](_positions(ids) + self.first_position)
        if "token_type_embeddings" in embeddings:
            states = states + embeddings["token_type_embeddings"].weight[0]
        return self.dropout(embeddings["layer_norm"](states) if "layer_norm" in embeddings else states)

    def _masked(self, ids: paddle.Tensor) -> paddle.Tensor | None:
        """What is added to the scores of attention, `[B or 1, 1, L or 1, L]`."""
        if self.mask == "padding":
            return ((ids == self.padding).astype("float32") * MASKED).unsqueeze([1, 2])
        if self.mask == "causal":
            positions = _positions(ids[:1])
            return ((positions > positions.transpose([1, 0])).astype("float32") * MASKED).unsqueeze([0, 1])
        return None

    def _pooled(self, states: paddle.Tensor, ids: paddle.Tensor) -> paddle.Tensor:
        if self.pooling == "cls":
            return F.tanh(self.network["pooler"]["dense"](states[:, 0]))
        if self.pooling in ("first", "last"):
            return states[:, 0 if self.pooling == "first" else -1]
        if self.pooling == "mean":
            tokens = (ids != self.padding).astype(states.dtype)
            weights = (tokens / tokens.sum(axis=1, keepdim=True)).unsqueeze(1)  # [B, 1, L]
        else:
            chosen = ids if self.pooling == "largest" else (ids == (self.end or 0)).astype("int32")
            weights = (_positions(ids) == chosen.argmax(axis=1, keepdim=True)).astype(states.dtype).unsqueeze(1)
        return weights.matmul(states).squeeze(1)


def _positions(ids: paddle.Tensor) -> paddle.Tensor:
    """The number of each token in its text, from 0, `[B, L]`; L may be unknown, as in a traced graph."""
    return paddle.cumsum(paddle.ones_like(ids), axis=1) - 1


@paddle.jit.not_to_static  # with the error in it, tracing takes the batch of the moment for that of all
def check_size(height: int, width: int, side: int) -> None:
    if (height, width) != (side, side):
        raise ValueError(f"images of {height} x {width} pixels; this tower takes {side} x {side}")


def cut_to_patches(images: paddle.Tensor, side: int, patch_size: int) -> paddle.Tensor:
    """Return the part of square images that whole patches cover, from the upper left corner."""
    covered = side // patch_size * patch_size
    return images if covered == side else images[:, :, :covered, :covered]


@paddle.jit.not_to_static  # a traced graph has no length yet
def check_length(length: int, longest: int) -> None:
    if paddle.in_dynamic_mode() and length > longest:
        raise ValueError(f"texts of {length} tokens, but Model.text.max_positions is {longest}")


@paddle.jit.not_to_static
def check_patches(height: int, width: int, patch_size: int) -> None:
    """ValueError if an image is not of whole patches; a traced graph has -1 for a size that it does not know."""
    if paddle.in_dynamic_mode() and (height % patch_size or width % patch_size):
        raise ValueError(f"images of {height} x {width} pixels; this tower takes multiples of {patch_size}")


def _resizing(size: int | paddle.Tensor, side: int, like: paddle.Tensor) -> paddle.Tensor:
    if isinstance(size, int):
        return paddle.to_tensor(resizing(size, side), dtype=like.dtype, place=like.place)
    scale = side / size.astype(like.dtype)
    centres = scale * (paddle.cumsum(paddle.ones([size], like.dtype)) - 0.5)
    cells = paddle.to_tensor(np.arange(side) + 0.5, dtype=like.dtype)
    weights = F.relu(1 - paddle.abs((cells - centres.unsqueeze(1)) / paddle.clip(scale, min=1.0)))
    return weights / weights.sum(axis=1, keepdim=True)


@lru_cache(maxsize=256)
def resizing(size: int, side: int) -> np.ndarray:
    """The matrix `[size, side]` by which `side` values in a row become `size`: bilinear, with antialiasing where they
    become fewer, as PyTorch's `interpolate` and Pillow have it."""
    scale = side / size
    reach = max(scale, 1.0)
    matrix = np.zeros([size, side])
    for row in range(size):
        centre = scale * (row + 0.5)
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), side)
        weights = np.maximum(0, 1 - np.abs((np.arange(first, last) - centre + 0.5) / reach))
        matrix[row, first:last] = weights / weights.sum()
    return matrix
