"""Checks, before the first step, that a run can enter each of its stages; it would otherwise fail there after days."""

from pathlib import Path

import paddle

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.config.stages import enter_stage
from ernie_vil2.models.weights.positions import IMAGE_POSITIONS, find_grids


def check_towers(config: Config) -> None:
    """Raise ConfigError if an image tower of a stage cannot be built, or cannot have the weights of the one before it.

    Only positions may have other shapes. The towers are built without memory for their weights.

    Args:
        config: configuration of the run that `resolve_stages` returned.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    size = 0
    for number, stage in enumerate(config.Training.stages):
        if stage.image_size == size:
            continue
        try:
            with paddle.LazyGuard():
                tower = enter_stage(config, number).Model.image.build()
        except ValueError as error:
            raise ConfigError(f"Training.stages: stage {number + 1}: {error}") from None
        new_shapes = {name: tuple(value.shape) for name, value in tower.state_dict().items()}
        if shapes:
            _compare_shapes(shapes, new_shapes, f"stage {number + 1}", config.Model.image.name)
        shapes, size = new_shapes, stage.image_size or 0


def check_folder(run: Path, rank: int) -> None:
    """Raise ConfigError if a rank does not see the run folder, from which it reads the checkpoint of a border."""
    if not run.is_dir():
        raise ConfigError(
            f"Training.stages: rank {rank} does not see {run}, and every rank reads the checkpoint with which a stage "
            "begins: set Training.output to a folder that all machines share"
        )


def _compare_shapes(
    shapes: dict[str, tuple[int, ...]], new_shapes: dict[str, tuple[int, ...]], stage: str, tower: str
) -> None:
    for name in shapes.keys() | new_shapes.keys():
        shape, new_shape = shapes.get(name), new_shapes.get(name)
        if shape == new_shape:
            continue
        are_positions = name.endswith(IMAGE_POSITIONS) and shape is not None and new_shape is not None
        if not (are_positions and find_grids(shape[1], new_shape[1])):  # type: ignore[index]
            raise ConfigError(
                f"Training.stages: {name} of the image tower {tower!r} has another shape in {stage} ({shape}, then "
                f"{new_shape}), and is no grid of positions that can be resized: keep one image_size"
            )
