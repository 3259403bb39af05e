"""Attention of transformers, by the plain formula or Paddle's fused kernel, and layers with its projections.

Inside `token_packing.skip_padding`, tokens of texts go in and out packed, `[T, width]` without padding.
"""

from functools import cache

import paddle
from paddle import nn
from paddle.nn import functional as F
from paddle.nn.functional.flash_attention import flash_attn_unpadded

from ernie_vil2.device.cpu_kernels import expand_for_cpu, fuse_linears, unbind
from ernie_vil2.device.token_packing import TextBoundaries, get_text_boundaries, pack, unpack
from ernie_vil2.towers.layers.rotary import apply_rope

MASKED = -1e4  # added to the score of a hidden token: its softmax is 0, and float16 can hold it


class Attention(nn.Layer):
    """Base class of attention; subclasses hold the projections.

    Attributes:
        fused: compute attention by Paddle's fused kernel, which on GPUs never holds the `L x L` weights and draws its
            own dropout masks; None: only on GPUs and without dropout.
    """

    def __init__(self, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.fused: bool | None = None

    def split_heads(self, x: paddle.Tensor, num_projections: int = 1) -> list[paddle.Tensor]:
        """Split concatenated projections by head.

        Args:
            x: `[B, L, num_projections * width]`, or packed tokens, which are padded with zeros first.
            num_projections: number of projections of the same width.

        Returns:
            `[B, heads, L, d]` for each projection.
        """
        x = unpack(x)
        head_width = x.shape[2] // (num_projections * self.heads)
        x = x.reshape([0, 0, num_projections, self.heads, head_width])
        return unbind(x.transpose([2, 0, 3, 1, 4]))

    def attend(self, q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, mask: paddle.Tensor | None) -> paddle.Tensor:
        """Attend with queries to keys and values.

        Args:
            q: queries, `[B, heads, L, d]`.
            k: keys, `[B, heads, M, d]`.
            v: values, `[B, heads, M, d]`.
            mask: added to the scores, `[B or 1, 1, L or 1, M]`; None: all tokens are visible.

        Returns:
            `[B, L, width]`; packed tokens, `[T, width]`, inside `skip_padding`.
        """
        # Under mixed precision a query may be float32. Paddle chooses the fused kernel by the types that it is given,
        # before it converts them: for float32, or for two types, it chooses a slower one.
        q, k = q.astype(v.dtype), k.astype(v.dtype)
        if self._should_fuse(q):
            by_token = [0, 2, 1, 3]  # [B, L, heads, d]
            return self._attend_fused(q.transpose(by_token), k.transpose(by_token), v.transpose(by_token), mask)
        dropout = self._current_dropout
        scores = paddle.matmul(q * q.shape[-1] ** -0.5, k, transpose_y=True)  # [B, heads, L, M]
        if mask is not None:
            # On CPUs, an addition that broadcasts takes ten times as long as one of an expanded mask.
            scores = scores + expand_for_cpu(mask.astype(scores.dtype), scores.shape)
        weights = F.softmax(scores)
        if dropout:
            weights = F.dropout(weights, dropout)
        return pack(paddle.matmul(weights, v).transpose([0, 2, 1, 3]).flatten(2))

    def attend_to_itself(
        self, qkv: paddle.Tensor, mask: paddle.Tensor | None, rope: paddle.Tensor | None, only_first: bool = False
    ) -> paddle.Tensor:
        """Attend as in `attend`, with concatenated queries, keys and values.

        Args:
            qkv: queries, keys and values, `[B, L, 3 * width]`, or packed tokens, `[T, 3 * width]`.
            mask: see `attend`.
            rope: cosines and sines of rotary positions, see `apply_rope`; None: there are no such positions.
            only_first: compute the result of the first token only, `[B, 1, width]`; neither with packed tokens nor
                with a causal mask.
        """
        texts = get_text_boundaries()
        if texts is not None:
            # Packed texts need no mask of padding, which is the only one that they may have, and no rotary positions,
            # which only images have.
            q, k, v = qkv.reshape([0, 3, self.heads, -1]).unbind(1)
            return self._attend_by_text(q, k, v, texts)
        if rope is None and self._should_fuse(qkv):
            # The kernel takes `[B, L, heads, d]`, which needs no copies here. Splitting by head and transposing back
            # would copy queries, keys and values once each before the kernel, and their gradients twice after it.
            qkv = unpack(qkv).reshape([0, 0, 3, self.heads, -1])
            if mask is None and not only_first and has_qkv_kernel(qkv):
                out, _ = F.flash_attn_qkvpacked(qkv, self._current_dropout, training=self.training)
                return pack(out.flatten(2))
            q, k, v = qkv.unbind(2)
            return self._attend_fused(q[:, :1] if only_first else q, k, v, mask)
        q, k, v = self.split_heads(qkv, num_projections=3)
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        return self.attend(q[:, :, :1] if only_first else q, k, v, mask)

    def _attend_by_text(
        self, q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, texts: TextBoundaries
    ) -> paddle.Tensor:
        """Attend with packed queries `[T, heads, d]` to the keys and values of the same text; return `[T, width]`."""
        # The kernel needs an upper bound of the lengths. The longest text is known on the device only.
        boundaries, max_length = texts.boundaries, texts.padded_length
        scale = q.shape[2] ** -0.5
        out, _ = flash_attn_unpadded(q, k, v, boundaries, boundaries, max_length, max_length, scale, training=False)
        return out.flatten(1)

    @property
    def _current_dropout(self) -> float:
        return self.dropout if self.training else 0.0

    def _should_fuse(self, x: paddle.Tensor) -> bool:
        if self.fused is None:
            return paddle.in_dynamic_mode() and x.place.is_gpu_place() and not self._current_dropout
        return self.fused

    def _attend_fused(
        self, q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, mask: paddle.Tensor | None
    ) -> paddle.Tensor:
        """Compute `attend` of queries `[B, L, heads, d]` and keys and values `[B, M, heads, d]` by Paddle's kernel."""
        if mask is not None:
            mask = mask.astype(q.dtype).expand([q.shape[0], 1, q.shape[1], k.shape[1]])
        dropout = self._current_dropout
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, training=self.training)
        return pack(out.flatten(2))


def has_qkv_kernel(qkv: paddle.Tensor) -> bool:
    """Return whether flash attention takes queries, keys and values as one tensor `[B, L, 3, heads, d]`."""
    return qkv.dtype in (paddle.float16, paddle.bfloat16) and has_flash_attention(qkv, qkv.shape[-1])


def has_flash_attention(x: paddle.Tensor, head_width: int) -> bool:
    """Return whether the device of a tensor has flash attention, which takes 16 bits only, for heads of this width."""
    if not x.place.is_gpu_place() or head_width % 8 or head_width > 256:
        return False
    # The heads and compute capabilities, Ampere and later, for which Paddle chooses flash attention
    # (nn/functional/sdpa.py, 3.3.1).
    return (8, 0) <= _get_capability(x.place.gpu_device_id()) <= (12, 1)


@cache
def _get_capability(device_id: int) -> tuple[int, int]:
    return paddle.device.cuda.get_device_capability(device_id)


class FusedQkvAttention(Attention):
    """Self-attention with queries, keys and values from one linear layer, as in PaddleClas's ViT."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__(heads, dropout)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: paddle.Tensor,
        mask: paddle.Tensor | None = None,
        rope: paddle.Tensor | None = None,
        only_first: bool = False,
    ) -> paddle.Tensor:
        return self.proj(self.attend_to_itself(self.qkv(x), mask, rope, only_first))


class SplitAttention(Attention):
    """Self-attention with a linear layer for each projection, as in PaddleNLP's encoders.

    Args:
        width: width of the tokens.
        heads: number of heads.
        dropout: dropout of the attention weights.
        key_bias: whether the layer of the keys has a bias.
        norm_epsilon: epsilon of a LayerNorm before the last layer; None: no such LayerNorm.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        key_bias: bool = True,
        norm_epsilon: float | None = None,
    ):
        super().__init__(heads, dropout)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias_attr=None if key_bias else False)
        self.v_proj = nn.Linear(width, width)
        self.norm = nn.Identity() if norm_epsilon is None else nn.LayerNorm(width, norm_epsilon)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        x: paddle.Tensor,
        mask: paddle.Tensor | None = None,
        rope: paddle.Tensor | None = None,
        only_first: bool = False,
    ) -> paddle.Tensor:
        # In training, one matrix product computes all three projections, unless one of them is frozen, for example.
        project = None
        if self.training and not only_first:
            project = fuse_linears((self.q_proj, self.k_proj, self.v_proj))
        if project is not None:
            return self.out_proj(self.norm(self.attend_to_itself(project(x), mask, rope)))
        texts = get_text_boundaries()
        if texts is not None:  # without mask and rotary positions, as in `attend_to_itself`
            q = self.q_proj(x).reshape([0, self.heads, -1])  # [T, heads, d]
            k = self.k_proj(x).reshape([0, self.heads, -1])
            v = self.v_proj(x).reshape([0, self.heads, -1])
            return self.out_proj(self.norm(self._attend_by_text(q, k, v, texts)))
        (q,) = self.split_heads(self.q_proj(x[:, :1] if only_first else x))
        (k,) = self.split_heads(self.k_proj(x))
        (v,) = self.split_heads(self.v_proj(x))
        if rope is not None:
            query_rope = rope[..., :1, :] if only_first else rope
            q, k = apply_rope(q, query_rope), apply_rope(k, rope)
        return self.out_proj(self.norm(self.attend(q, k, v, mask)))
