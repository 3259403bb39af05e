"""Stages of a run: parts with an image size, share of image tokens, text length and learning rate of their own.

A stage is the run with these settings replaced, from the step at which it begins. `enter_stage` makes the configuration
of a stage; code that reads it need not know of stages.
"""

from itertools import pairwise
from typing import Any

from ernie_vil2.config.load import validate_config
from ernie_vil2.config.sections import Config, StageConfig
from ernie_vil2.io.terminal import ConfigError

# Settings of a stage, and the section that holds their value in the configuration of the stage.
_SECTIONS = {
    "image_size": ("Model", "image"),
    "keep_tokens": ("Model", "image"),
    "max_length": ("Data",),
    "learning_rate": ("Optimizer",),
}


def resolve_stages(config: Config) -> Config:
    """Return the configuration with every setting of every stage; what a stage leaves out is filled in.

    To be called when `Model.like` is resolved, because it may give the image size and the length of texts.

    Raises:
        ConfigError: the image tower lacks a setting of a stage, or a stage contradicts other settings.
    """
    if not config.Training.stages:
        return config
    tree = config.model_dump()
    for number, stage in enumerate(tree["Training"]["stages"], start=1):
        for key, path in _SECTIONS.items():
            section = _find_section(tree, path)
            if key not in section and stage[key] is not None:
                raise ConfigError(
                    f"Training.stages: stage {number} sets {key}, which the image tower {config.Model.image.name!r} "
                    "does not have: remove it"
                )
            if stage[key] is None:
                stage[key] = section.get(key)
        if config.Model.image.name == "NaFlex" and stage["image_size"] != config.Model.image.image_size:
            raise ConfigError(
                f"Training.stages: stage {number} sets image_size={stage['image_size']}, but 'NaFlex' resizes its "
                "positions itself and keeps the grid of Model.image.image_size: leave it out"
            )
    # Each stage is a whole configuration, which may contradict itself where that of the run does not.
    config = validate_config(tree, "Training.stages")
    for number in range(len(config.Training.stages)):
        enter_stage(config, number)
    return config


def enter_stage(config: Config, number: int) -> Config:
    """Return the configuration of a stage.

    Random windows (`Views.resize`) and the resize before the evaluation's crop (`Model.image.resized`) grow and shrink
    with the image size, so that a view shows the same share of an image in every stage.

    Args:
        config: configuration of the run that `resolve_stages` returned.
        number: number of the stage, from 0.

    Raises:
        ConfigError: the settings of the stage contradict others.
    """
    stages = config.Training.stages
    if not stages:
        return config
    tree, stage = config.model_dump(), stages[number]
    image = tree["Model"]["image"]
    scale = (stage.image_size or image["image_size"]) / image["image_size"]
    tree["Views"]["resize"] = round(scale * tree["Views"]["resize"])
    if image.get("resized") is not None:
        image["resized"] = round(scale * image["resized"])
    for key, path in _SECTIONS.items():
        value = getattr(stage, key)
        if value is not None:
            _find_section(tree, path)[key] = value
    return validate_config(tree, f"Training.stages: stage {number + 1}")


def find_borders(config: Config) -> list[int]:
    """Return the number of steps after which each stage ends; the last is `Training.steps`.

    Raises:
        ConfigError: the run is so short that a stage has no step.
    """
    steps = config.Training.steps
    # `until` is a share of the run, so that another number of steps moves the borders along.
    borders = [round(stage.until * steps) for stage in config.Training.stages] or [steps]
    for number, (start, end) in enumerate(pairwise([0, *borders]), start=1):
        if start == end:
            raise ConfigError(
                f"Training.stages: stage {number} has no step of {steps:,} Training.steps; set another until"
            )
    return borders


def find_stage(config: Config, step: int) -> int:
    """Return the number of the stage, from 0, of an optimiser step (0 is the first); of later steps the last stage."""
    borders = find_borders(config)
    for number, border in enumerate(borders):
        if step < border:
            return number
    return len(borders) - 1


def list_begun_stages(config: Config, steps: int) -> list[tuple[int, StageConfig]]:
    """Return the stages that begin within the first steps of a run, each with its first step.

    Two runs with equal lists ran these steps alike. `until` is left out: a border that lies ahead may still move.

    Args:
        config: configuration of the run that `resolve_stages` returned, or of one of its stages.
        steps: number of steps.
    """
    borders, stages = find_borders(config), config.Training.stages
    begun_stages = []
    for start, stage in zip([0, *borders], stages, strict=False):
        if start < max(1, steps):
            begun_stages.append((start, stage.model_copy(update={"until": 1.0})))
    return begun_stages


def describe_stage(config: Config, number: int) -> str:
    """Return the end and the sizes of a stage in words; `config` has the stages that `resolve_stages` returned."""
    stage, end = config.Training.stages[number], find_borders(config)[number]
    words = [f"images of {stage.image_size} pixels"]
    if stage.keep_tokens is not None and stage.keep_tokens < 1:
        words.append(f"{stage.keep_tokens:g} of their patches")
    words += [f"texts of up to {stage.max_length} tokens", f"learning rate {stage.learning_rate:g}"]
    return f"stage {number + 1} up to step {end:,}: {', '.join(words)}"


def _find_section(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for name in path:
        tree = tree[name]
    return tree
