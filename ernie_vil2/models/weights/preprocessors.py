"""How a folder's images become its model's input: `preprocessor_config.json` of transformers 4, `processor_config.json`
of transformers 5, `preprocess_cfg` of OpenCLIP, or what the family does where a folder says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ernie_vil2.config import ImageTowerConfig
from ernie_vil2.models.weights.settings import Settings

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "clip": {"preprocessing": "transformers", "resize": "shortest", "interpolation": "bicubic"},
    "square": {"preprocessing": "transformers", "resize": "squash", "interpolation": "bicubic"},
    "naflex": {"preprocessing": "naflex", "interpolation": "bilinear", "most_patches": 256},
    "fgclip2": {"preprocessing": "naflex", "interpolation": "bilinear"},
    "open_clip": {"preprocessing": "open_clip", "resize": "shortest", "interpolation": "bicubic"},
    "cn_clip": {"preprocessing": "open_clip", "resize": "squash", "interpolation": "bicubic"},
}
"""What a family does, by `Family.preprocessing`."""
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_FACTS = {"do_resize": True, "do_rescale": True, "do_normalize": True}


def with_preprocessing(image: ImageTowerConfig, kind: str, folder: Path, described: Settings) -> ImageTowerConfig:
    """An image tower with the preprocessing of its folder.

    Args:
        image: its size is that of the weights, its mean and deviation those of the family.
        kind: a name of `FAMILIES`.
        folder: that may hold the settings of an image processor.
        described: what describes the model, which of OpenCLIP has a section for images.

    Raises:
        ValueError: the settings ask for what is not done here, or for another size than the model's.
    """
    values = dict(FAMILIES[kind])
    if kind == "open_clip":
        values |= _of_open_clip(described.part("preprocess_cfg"), image)
    elif kind != "cn_clip":
        for name, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
            if (folder / name).is_file():
                found = Settings.read(folder / name)
                values |= _of_transformers(found.part(section) if section else found, image, values)
                break
    return image.model_copy(update=values)


def _of_open_clip(settings: Settings, image: ImageTowerConfig) -> dict[str, Any]:
    settings.check_facts({"fill_color": 0, "mode": "RGB"})
    size = settings.values.get("size", image.image_size)
    if size not in (image.image_size, [image.image_size] * 2):
        raise settings.refusal("size", f"the model takes {image.image_size} pixels")
    return {
        "resize": settings.choice("resize_mode", "shortest", {one: one for one in ("shortest", "squash", "longest")}),
        "interpolation": settings.choice("interpolation", "bicubic", {one: one for one in ("bicubic", "bilinear")}),
        "mean": settings.numbers("mean", image.mean),
        "std": settings.numbers("std", image.std, positive=True),
    }


def _of_transformers(settings: Settings, image: ImageTowerConfig, usual: Mapping[str, Any]) -> dict[str, Any]:
    settings.check_facts(_FACTS)
    normalisation = settings.normalisation(image.mean, image.std)
    resample = settings.values.get("resample")
    if resample is not None and resample not in _FILTERS:
        raise settings.refusal("resample", f"known are {', '.join(map(str, _FILTERS))}")
    values = normalisation | {"interpolation": usual["interpolation"] if resample is None else _FILTERS[resample]}
    if usual["preprocessing"] == "naflex":
        if settings.values.get("patch_size", image.patch_size) != image.patch_size:
            raise settings.refusal("patch_size", f"the model has patches of {image.patch_size} pixels")
        most = usual.get("most_patches")
        return values | {"most_patches": most and settings.count("max_num_patches", most)}
    return values | _sides(settings, image.image_size, usual["resize"])


def _sides(settings: Settings, side: int, usual: str) -> dict[str, Any]:
    """The resize, and the side before a crop where that is not the model's."""
    size = settings.values.get("size", side)
    if type(size) is int:  # before 2023, as the family has it
        size = {"shortest_edge": size} if usual == "shortest" else {"height": size, "width": size}
    crop = settings.values.get("crop_size", side)
    crop = {"height": crop, "width": crop} if type(crop) is int else crop
    square, cropped = {"height": side, "width": side}, settings.values.get("do_center_crop", usual == "shortest")
    if cropped and crop != square:
        raise settings.refusal("crop_size", f"the model takes {side} pixels")
    if size == square:
        return {"resize": "squash"}
    short = size.get("shortest_edge") if isinstance(size, dict) and len(size) == 1 else None
    if not cropped or type(short) is not int or not side <= short <= 4096:
        raise settings.refusal("size", f"the model takes {side} pixels")
    return {"resize": "shortest", "resized": short if short != side else None}
