"""The worker of `train_step.py` in PyTorch: the same towers and loss, written as PyTorch is written.

Weights and batch come from the folder that the first Paddle worker filled; the layers carry the same names. Attention
is PyTorch's fused one.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.train_step import serve


class Attention(nn.Module):
    """Self-attention; subclasses project to queries, keys and values, each `[B, H, L, D / H]`."""

    def __init__(self, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, q, k, v, mask=None):
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout).transpose(1, 2).flatten(2)


class ImageAttention(Attention):
    def __init__(self, width, heads):
        super().__init__(heads, 0.0)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        return self.proj(self.attend(*map(self.split, self.qkv(x).chunk(3, dim=-1))))


class TextAttention(Attention):
    def __init__(self, width, heads, dropout):
        super().__init__(heads, dropout)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x, mask):
        q, k, v = (self.split(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(self.attend(q, k, v, mask))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class ImageBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn, self.mlp = ImageAttention(width, heads), Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TextBlock(nn.Module):
    def __init__(self, width, heads, dropout, attention_dropout, epsilon):
        super().__init__()
        self.self_attn = TextAttention(width, heads, attention_dropout)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask):
        x = self.norm1(x + self.dropout(self.self_attn(x, mask)))
        return self.norm2(x + self.dropout(self.linear2(F.gelu(self.linear1(x)))))


class ImageTower(nn.Module):
    def __init__(self, image_size, patch_size, width, depth, heads):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_size, patch_size, bias=False)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (image_size // patch_size) ** 2, width))
        self.ln_pre, self.norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.blocks = nn.ModuleList(ImageBlock(width, heads) for _ in range(depth))

    def forward(self, images):
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        tokens = self.ln_pre(tokens + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


class TextTower(nn.Module):
    def __init__(self, vocabulary, width, depth, heads, max_positions, dropout, attention_dropout, epsilon):
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocabulary, width, padding_idx=0),
                "position_embeddings": nn.Embedding(max_positions, width),
                "layer_norm": nn.LayerNorm(width, epsilon),
            }
        )
        self.dropout = nn.Dropout(dropout)
        layers = (TextBlock(width, heads, dropout, attention_dropout, epsilon) for _ in range(depth))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, ids):
        words = self.embeddings["word_embeddings"](ids)
        states = words + self.embeddings["position_embeddings"].weight[: ids.shape[1]]
        states = self.dropout(self.embeddings["layer_norm"](states))
        mask = (ids != 0)[:, None, None]
        for layer in self.encoder["layers"]:
            states = layer(states, mask)
        return torch.tanh(self.pooler["dense"](states[:, 0]))


class DualEncoder(nn.Module):
    def __init__(self, image, text):
        super().__init__()
        self.image, self.text = image, nn.ModuleDict({"network": text})
        self.log_logit_scale = nn.Parameter(torch.empty(1))

    def forward(self, images, ids):
        """Return the embeddings of the two image views and the two text views, `[4, B, D]`."""
        features = self.image(images.flatten(0, 1)), self.text["network"](torch.cat([ids, ids]))
        return torch.cat([F.normalize(part) for part in features]).unflatten(0, (4, -1))


def multi_view_loss(embeddings, logit_scale):
    image_1, image_2, text_1, text_2 = embeddings
    answers = torch.arange(len(image_1))
    pairs = ((image_1, image_2), (text_1, text_2), (image_1, text_1), (text_1, image_1))
    return sum(F.cross_entropy(logit_scale * rows @ columns.T, answers) for rows, columns in pairs)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = json.loads((folder / "config.json").read_text())
    image, text, options = config["Model"]["image"], config["Model"]["text"], config["Optimizer"]
    weights, batch = (
        {name: torch.from_numpy(value) for name, value in np.load(folder / file).items()}
        for file in ("weights.npz", "batch.npz")
    )
    vocabulary = len(weights["text.network.embeddings.word_embeddings.weight"])
    text_sizes = ("width", "depth", "heads", "max_positions", "dropout", "attention_dropout", "epsilon")
    model = DualEncoder(
        ImageTower(*(image[key] for key in ("image_size", "patch_size", "width", "depth", "heads"))),
        TextTower(vocabulary, *(text[key] for key in text_sizes)),
    )
    linear = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    model.load_state_dict({name: value.T if name in linear else value for name, value in weights.items()})
    optimizer = torch.optim.AdamW(
        model.parameters(),
        options["learning_rate"],
        (options["beta1"], options["beta2"]),
        options["epsilon"],
        options["weight_decay"],
    )

    def score():
        return multi_view_loss(model(batch["images"], batch["ids"]), model.log_logit_scale.exp())

    def step():
        score().backward()
        nn.utils.clip_grad_norm_(model.parameters(), options["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()

    model.eval()
    with torch.no_grad():
        value = float(score())
    model.train()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    serve({"parameters": parameters, "loss": value, "note": f"torch {torch.__version__}"}, step)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
