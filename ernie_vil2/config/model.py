"""Sections of the model: its towers, the joint space, and where its weights come from."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator

from ernie_vil2.section import Positive, Section, Size
from ernie_vil2.towers.base import ImageTowerConfig, TextTowerConfig, TowerConfig
from ernie_vil2.towers.text import PublishedEncoder
from ernie_vil2.towers.vit import PublishedVit

ImageTower = Annotated[SerializeAsAny[ImageTowerConfig], BeforeValidator(ImageTowerConfig.read)]
TextTower = Annotated[SerializeAsAny[TextTowerConfig], BeforeValidator(TextTowerConfig.read)]
"""Sections whose fields are those of the tower that they name: not a union, because a user's own tower is one, too."""


class ModelConfig(Section):
    # Before the towers, whose names follow from them.
    implementation: Literal["native", "suite"] | None = Field(
        None,
        description="who builds the towers that there are twice: we, Paddle's suites, or as their names say (null)",
    )
    like: str | None = Field(
        None,
        description="a model whose architecture is taken (weights: that one) where the configuration does not set it",
    )
    image: ImageTower = Field(PublishedVit(), validate_default=True, description="image tower")
    text: TextTower = Field(PublishedEncoder(), validate_default=True, description="text tower")
    embed_dim: Size | None = Field(None, description="width of the joint space; null: the text tower's width")
    projections: Literal["by_width", "always", "text"] = Field(
        "by_width",
        description="after which towers a linear projection comes: those of another width, both, or the text tower",
    )
    weights: str | None = Field(
        None, description="initial: of the whole model, file, folder or known name; those of a tower come after it"
    )
    dialect: dict[str, str] = Field(
        default={}, description="how the model of another family in weights is read (docs/models.md)"
    )
    allow: list[str] = Field(
        default=[], description="names, as glob patterns, in which initial weights may differ from the model"
    )

    @field_validator("image", "text")
    @classmethod
    def _name_builder(cls, tower: TowerConfig, info: ValidationInfo) -> TowerConfig:
        """Bring the name of a tower to what `implementation` asks for."""
        builder = info.data.get("implementation")
        if builder is None or (info.data.get("like") and "name" not in tower.model_fields_set):
            return tower  # the name says who builds it, or that of the model that `like` names does
        return tower.built_by(builder)


def without_implementation(config: ModelConfig) -> ModelConfig:
    """Return the same towers, whoever builds them: for what is equal to rounding."""
    towers = {"image": config.image.native(), "text": config.text.native()}
    return config.model_copy(update={**towers, "implementation": None})


def as_installed(config: ModelConfig) -> ModelConfig:
    """Return the configuration with native towers instead of those whose library is missing, which is reported.

    From then on the names alone say who builds a tower.
    """
    towers = {"image": config.image.as_installed(), "text": config.text.as_installed()}
    return config.model_copy(update={**towers, "implementation": None})


class HeadConfig(Section):
    lasting: ClassVar[tuple[str, ...]] = ("dropout", "rate")

    kind: Literal["concatenation", "interaction"] = Field(
        "concatenation",
        description="an MLP on the embeddings side by side, as in the paper, or with differences and products as well",
    )
    width: Size | None = Field(None, description="of its hidden layer; null: twice that of the joint space")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="behind its hidden layer")
    rate: Positive = Field(10.0, description="factor of its learning rate")
