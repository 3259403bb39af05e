"""ERNIE and BERT from PaddleNLP as text towers."""

from __future__ import annotations

import paddle
from paddle import nn

from ernie_vil2.config.schema import TextTowerConfig
from ernie_vil2.models.rescale import rescale

SIZES = {"base": {"width": 768, "depth": 12, "heads": 12}, "large": {"width": 1024, "depth": 24, "heads": 16}}
PAD_ID = 0


def build_transformer(config: TextTowerConfig, vocab_size: int) -> TextTower:
    """The tower of a published or given size, randomly initialised; ValueError if the heads do not divide the width."""
    family, _, size = config.name.partition("-")
    sizes = SIZES[size] if size else {"width": config.width, "depth": config.depth, "heads": config.heads}
    if sizes["width"] % sizes["heads"]:
        raise ValueError(f"Model.text: width ({sizes['width']}) must be divisible by heads ({sizes['heads']})")
    arguments = {
        "vocab_size": vocab_size,
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": 4 * sizes["width"],
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "max_position_embeddings": config.max_positions,
    }
    return TextTower(FAMILIES[family](arguments, config.epsilon), config.pooling)


class TextTower(nn.Layer):
    """A PaddleNLP encoder with features for the whole text. Padding (id 0) is masked: it changes no feature.

    Args:
        network: PaddleNLP's encoder.
        pooling: "cls", its own pooled output, tanh of a linear map of the [CLS] state; or "mean", the mean of the
            states of all tokens that are not padding.
    """

    def __init__(self, network: nn.Layer, pooling: str = "cls"):
        super().__init__()
        self.network = network
        self.pooling = pooling
        if pooling == "mean":
            network.pooler = nn.Identity()
        self.width = network.config.hidden_size
        for layer in network.sublayers():
            if isinstance(layer, nn.Linear):
                # The libraries' deviation of 0.02 belongs to width 768: a narrow tower's layers would hardly
                # pass a signal on, and all its texts would look alike.
                rescale(layer.weight, (768 / self.width) ** 0.5)
            elif isinstance(layer, nn.Embedding) and self.width < 768:
                # The sum of the embeddings is normalised, so that their scale only says how far a step of Adam,
                # whose length is given, turns them. Smaller ones let a small tower learn its words in fewer steps.
                rescale(layer.weight, 0.25)

    @property
    def blocks(self) -> list[nn.Layer]:
        """The transformer's layers, first to last."""
        return list(self.network.encoder.layers)

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        _check_length(ids.shape[1], self.network.config.max_position_embeddings)
        tokens = (ids != PAD_ID).astype("float32")  # [B, L]
        states, pooled = self.network(ids, attention_mask=tokens)
        if self.pooling == "cls":
            return pooled
        weights = (tokens / tokens.sum(axis=1, keepdim=True)).unsqueeze(1)  # [B, 1, L]
        return weights.astype(states.dtype).matmul(states).squeeze(1)


@paddle.jit.not_to_static  # a traced graph has no length yet
def _check_length(length: int, longest: int) -> None:
    if paddle.in_dynamic_mode() and length > longest:
        raise ValueError(f"texts of {length} tokens, but Model.text.max_positions is {longest}")


def _ernie(arguments: dict, epsilon: float) -> nn.Layer:
    from paddlenlp.transformers import ErnieConfig, ErnieModel

    model = ErnieModel(ErnieConfig(**arguments, type_vocab_size=0, use_task_id=False))
    for layer in model.sublayers():
        if isinstance(layer, nn.LayerNorm):
            # PaddleNLP's initialiser sets 1e-12 whatever its configuration says.
            layer._epsilon = epsilon
    return model


def _bert(arguments: dict, epsilon: float) -> nn.Layer:
    from paddlenlp.transformers import BertConfig, BertModel

    return BertModel(BertConfig(**arguments))


FAMILIES = {"ernie": _ernie, "bert": _bert}
