"""Families of dual encoders that others have published, and which of them a folder holds."""

from collections.abc import Iterator
from pathlib import Path

from ernie_vil2.io.files import load_json
from ernie_vil2.io.terminal import printable
from ernie_vil2.models.weights.families.family import Family, FamilyModel
from ernie_vil2.models.weights.settings import MAX_CHARACTERS
from ernie_vil2.registry import Registry

__all__ = ["FAMILIES", "Family", "FamilyModel", "check_type", "find_family"]

_HERE = "ernie_vil2.models.weights.families"
FAMILIES: Registry[Family] = Registry(
    "family of dual encoders",
    {
        "clip": f"{_HERE}.clip:CLIP",
        "cn_clip": f"{_HERE}.cn_clip:CN_CLIP",
        "altclip": f"{_HERE}.bert:ALTCLIP",
        "chinese_clip": f"{_HERE}.bert:CHINESE_CLIP",
        "fgclip2": f"{_HERE}.siglip:FGCLIP_2",
        "metaclip_2": f"{_HERE}.clip:METACLIP_2",
        "open_clip": f"{_HERE}.open_clip:OPEN_CLIP",
        "siglip": f"{_HERE}.siglip:SIGLIP",
        "siglip2": f"{_HERE}.siglip:SIGLIP_2",
    },
)
"""By the `model_type` of a config.json; `open_clip` and `cn_clip` are known by their files."""
_TORCH = (".pt", ".pth")
_SUFFIXES = (".safetensors", ".bin", ".json", *_TORCH)
_OWN = ("ernie_vil",)  # of PaddleNLP's folders, which `stored` reads


def find_family(path: Path) -> tuple[Family, Path] | None:
    """The family of a folder or file, and the file of its weights; None if it is none's.

    A folder that holds a model for transformers and for OpenCLIP, as some do, is read as the former.

    Raises:
        FileNotFoundError: a family's folder holds no weights.
        ValueError: its config.json is not JSON.
    """
    candidates = list(_candidates(path))
    for family in candidates:
        weights = path if path.is_file() else family.weights(path)
        if weights is not None:
            return family, weights
    if candidates:
        raise FileNotFoundError(
            f"{path}: the folder of a {candidates[0].title}, but its weights are not there, or "
            "more than one file could be them: name the file"
        )
    return None


def _candidates(path: Path) -> Iterator[Family]:
    """Families whose settings lie in a folder, or next to a file of weights."""
    folder, kind = (path, "") if path.is_dir() else (path.parent, path.suffix)
    if kind not in ("", *_SUFFIXES):
        return
    of_transformers = kind not in _TORCH and not path.name.startswith("open_clip")
    model_type = _model_type(folder) if of_transformers else None
    if model_type is not None and model_type in FAMILIES:
        yield FAMILIES.find(model_type)
    if (folder / "open_clip_config.json").is_file():
        yield FAMILIES.find("open_clip")
    if kind in _TORCH or (not kind and any(folder.glob("*.pt"))):
        yield FAMILIES.find("cn_clip")


def check_type(folder: Path) -> None:
    """ValueError if a config.json names a type of model that is not known here."""
    kind = _model_type(folder)
    if kind is not None and kind not in FAMILIES:
        raise ValueError(
            f"{folder / 'config.json'}: model_type is {printable(kind, longest=60)}; known are "
            f"{', '.join((*FAMILIES, *_OWN))}"
        )


def _model_type(folder: Path) -> str | None:
    """What a config.json of another family says; None: there is none, or it is of PaddleNLP."""
    if not (folder / "config.json").is_file():
        return None
    settings = load_json(folder / "config.json", MAX_CHARACTERS)
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    return None if kind is None or kind in _OWN else str(kind)
