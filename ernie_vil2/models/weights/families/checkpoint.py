"""Shared by families that are published as a single `.pt` file: sizes come from the shapes of its arrays."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.models.weights.torch_files import TORCH_SUFFIXES
from ernie_vil2.towers.base import TextTowerConfig, TextVariant
from ernie_vil2.towers.transformer import Transformer


def is_checkpoint(path: Path) -> bool:
    """Return whether a path is a file of PyTorch, or a folder with one."""
    return bool(_list_checkpoints(path)) if path.is_dir() else path.suffix in TORCH_SUFFIXES


def find_checkpoint(folder: Path) -> Path | None:
    """Return the only .pt file of a folder; None if there are several, because any of them could be meant."""
    paths = _list_checkpoints(folder)
    return paths[0] if len(paths) == 1 else None


def _list_checkpoints(folder: Path) -> list[Path]:
    # Hidden files are no weights: macOS puts a `._NAME` next to each file on a foreign disk, and copies it along.
    return [path for path in folder.glob("*.pt") if path.is_file() and not path.name.startswith(".")]


def read_array_names(path: Path) -> Collection[str]:
    """Return the names of the arrays in a file of PyTorch, or in the only one of a folder.

    The result is empty if there is no such file, or several.

    Raises:
        ValueError: the file is damaged.
    """
    if not is_checkpoint(path):
        return ()
    weights = find_checkpoint(path) if path.is_dir() else path
    # The arrays are views of the file, so that naming them costs no memory.
    return () if weights is None else read_weights(weights, keep_bfloat16=True).keys()


def get_shape(arrays: Mapping[str, np.ndarray], name: str, num_axes: int, path: Path) -> tuple[int, ...]:
    """Return the shape of an array; raise ValueError if it is missing, empty or has another number of axes."""
    shape: tuple[int, ...] = arrays[name].shape if name in arrays else ()
    if len(shape) != num_axes or 0 in shape:
        raise ValueError(
            f"{path}: {name} is missing or has the shape {list(shape)}; {num_axes} axes are expected, none empty"
        )
    return shape


def count_blocks(arrays: Collection[str], prefix: str) -> int:
    """Return the number of blocks: of distinct words between `prefix` and the next dot in the names."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in arrays if name.startswith(prefix)})


def choose_image_size(settings: Settings, key: str, patch_size: int, grid_side: int) -> int:
    """Return the settings' image size if it has `grid_side` patches per side, else `patch_size * grid_side`."""
    image_size = settings.read_int(key, patch_size * grid_side)
    return image_size if image_size // patch_size == grid_side else patch_size * grid_side


def find_grid_side(positions: int, has_class_token: bool, name: str, path: Path) -> int:
    """Return the number of patches per side of a square image, by the number of position embeddings.

    Args:
        positions: number of position embeddings.
        has_class_token: whether one of them is the class token's.
        name: name of the array.
        path: file of the array.

    Raises:
        ValueError: there are no patches, or they are no square.
    """
    num_patches = positions - has_class_token
    grid_side = math.isqrt(max(num_patches, 0))
    if num_patches < 1 or grid_side**2 != num_patches:
        raise ValueError(f"{path}: {name} has {positions} rows, which are no square of patches")
    return grid_side


def read_openai_text_tower(
    arrays: Mapping[str, np.ndarray], prefix: str, path: Path, settings: Settings, head_counts: Mapping[int, int]
) -> TextTowerConfig:
    """Describe a text tower of OpenAI's form by its arrays.

    Args:
        arrays: arrays of the model.
        prefix: beginning of the names of the tower's arrays.
        path: file of the arrays.
        settings: the authors' settings of the tower, for `heads`; empty if there are none.
        head_counts: heads of the published models by their width, for a file without settings.
    """
    num_words, width = get_shape(arrays, f"{prefix}token_embedding.weight", 2, path)
    positions, _ = get_shape(arrays, f"{prefix}positional_embedding", 2, path)
    blocks = f"{prefix}transformer.resblocks."
    hidden, _ = get_shape(arrays, f"{blocks}0.mlp.c_fc.weight", 2, path)
    depth = count_blocks(arrays, blocks)
    sizes = {"context_length": positions, "vocab_size": num_words, "width": width, "layers": depth}
    settings.check_sizes(sizes)
    return Transformer(
        name="transformer",
        width=width,
        depth=depth,
        heads=find_head_count(settings, "heads", width, head_counts),
        max_positions=positions,
        pooling="largest_id",
        dropout=0.0,
        attention_dropout=0.0,
        epsilon=1e-5,
        variant=TextVariant(hidden=hidden, activation="gelu"),
    )


def find_head_count(settings: Settings, key: str, width: int, head_counts: Mapping[int, int]) -> int:
    """Return the number of heads that the settings state or, without settings, that of the published model.

    Raises:
        ValueError: neither is known, because no shape shows it.
    """
    if key in settings.values:
        return settings.read_int(key, 0)
    if width not in head_counts:
        raise ValueError(
            f"{settings.path}: a tower of width {width} is not one of the published models, and no shape shows its "
            "attention heads: put the authors' settings of it next to the file (docs/models.md)"
        )
    return head_counts[width]
