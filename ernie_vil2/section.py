"""What all sections of the configuration are, and the types of their values."""

from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Precision = Literal["float32", "bfloat16", "float16"]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
MAX_EPSILON = 1e-3  # of a LayerNorm; Paddle's kernel fails at the first batch with a larger one
Epsilon = Annotated[float, Field(gt=0, le=MAX_EPSILON)]
Strength = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]  # where null is what an empty text might be meant for
Size = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=1024)]


class SwitchWord(str):
    """A word that YAML reads as a boolean (on, off, yes, no, true, false), as it was written, with its `truth`.

    Which of both is meant depends on the field: `Training.fused_attention` is one of auto, on and off, a caption may be
    in the language no (Norwegian), and `Training.recompute` is a boolean. The reader of YAML does not know the fields,
    so that it keeps the word, and `Section` decides.
    """

    truth: bool

    @classmethod
    def of(cls, text: str, truth: bool) -> Self:
        """Return the word with its truth."""
        word = cls(text)
        word.truth = truth
        return word


def without_switch_words(value: Any, types: Sequence[Any] = (Any,)) -> Any:
    """Return a value of YAML with a boolean for every `SwitchWord` where its field takes one and no text.

    Args:
        value: what YAML gave, with lists and mappings in it.
        types: the annotations of which the value must fit one; `Any` takes booleans.
    """
    alternatives = [alternative for annotation in types for alternative in _alternatives(annotation)]
    if isinstance(value, SwitchWord):
        takes_text = any(alternative is str or get_origin(alternative) is Literal for alternative in alternatives)
        takes_truth = bool in alternatives or Any in alternatives
        return value.truth if takes_truth and not takes_text else value
    if isinstance(value, list):
        element_types = _type_arguments(alternatives, list, 0)
        return [without_switch_words(element, element_types) for element in value]
    if isinstance(value, dict):
        # Keys are names, of languages or options, and texts everywhere. A section within this one sees to its own.
        value_types = _type_arguments(alternatives, dict, 1)
        if not value_types:
            return value
        return {key: without_switch_words(inner, value_types) for key, inner in value.items()}
    return value


def _alternatives(annotation: Any) -> list[Any]:
    """Return the types of a union, without what `Annotated` says of them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [alternative for member in get_args(annotation) for alternative in _alternatives(member)]
    return [annotation]


def _type_arguments(alternatives: Sequence[Any], container: type, position: int) -> list[Any]:
    """Return the types of what is in a list or a mapping, by the alternatives that are one."""
    arguments = [
        get_args(alternative)[position] for alternative in alternatives if get_origin(alternative) is container
    ]
    return [*arguments, *[Any] * (Any in alternatives)]


class Section(BaseModel):
    """A part of the configuration: unknown keys, wrong types and infinite numbers are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    kind_field: ClassVar[str] = "kind"
    lasting: ClassVar[tuple[str, ...]] = ()
    """Fields that an override by another kind keeps, of a section of several kinds, one of which `kind_field` names."""

    @field_validator("*", mode="before")
    @classmethod
    def _read_switch_words(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        return without_switch_words(value, [field.annotation])

    @classmethod
    def kinds(cls) -> list[type["Section"]]:
        """Return the sections that one of this type may be."""
        return [cls]

    @classmethod
    def required_fields(cls) -> list[str]:
        """Return the fields, but for that of the kind, which have no default."""
        required = [name for name, field in cls.model_fields.items() if field.is_required()]
        return [name for name in required if name != cls.kind_field]
