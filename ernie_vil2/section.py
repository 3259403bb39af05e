"""Base class of the sections of the configuration, and the types of their values."""

from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Precision = Literal["float32", "bfloat16", "float16"]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
MAX_EPSILON = 1e-3  # Paddle's LayerNorm kernel refuses a larger one, at the first batch
Epsilon = Annotated[float, Field(gt=0, le=MAX_EPSILON)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]  # for "nothing" people write null, not an empty text
# Bounds of sizes, so that a typing error is refused before it fills the memory.
Size = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=1024)]


class SwitchWord(str):
    """A word that YAML reads as a boolean (on, off, yes, no, true, false), as it was written, with its `truth`.

    Its meaning depends on the field: `Training.fused_attention` is one of auto, on and off, a caption may be in the
    language no (Norwegian), and `Training.recompute` is a boolean. The YAML reader does not know the fields, so it
    keeps the word, and `Section` decides.
    """

    truth: bool

    @classmethod
    def of(cls, text: str, truth: bool) -> Self:
        """Return the word with its truth."""
        word = cls(text)
        word.truth = truth
        return word


def resolve_switch_words(value: Any, types: Sequence[Any] = (Any,)) -> Any:
    """Replace every `SwitchWord` in a value of YAML by a boolean where its field takes booleans and no texts.

    Args:
        value: value of YAML; lists and mappings are searched.
        types: annotations; the value must fit one of them. `Any` takes booleans.
    """
    alternatives = [alternative for annotation in types for alternative in _list_alternatives(annotation)]
    if isinstance(value, SwitchWord):
        takes_text = any(alternative is str or get_origin(alternative) is Literal for alternative in alternatives)
        takes_truth = bool in alternatives or Any in alternatives
        return value.truth if takes_truth and not takes_text else value
    if isinstance(value, list):
        element_types = _list_type_arguments(alternatives, list, 0)
        return [resolve_switch_words(element, element_types) for element in value]
    if isinstance(value, dict):
        # Keys are texts everywhere: names of languages or options.
        value_types = _list_type_arguments(alternatives, dict, 1)
        if not value_types:
            return value  # a section within this one, which resolves its own words
        resolved = {}
        for key, inner in value.items():
            plain_key = str(key) if isinstance(key, SwitchWord) else key  # no SwitchWord can be written as YAML
            resolved[plain_key] = resolve_switch_words(inner, value_types)
        return resolved
    return value


def _list_alternatives(annotation: Any) -> list[Any]:
    """Return the types of a union, without the constraints of `Annotated`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _list_alternatives(get_args(annotation)[0])
    if origin not in (Union, UnionType):
        return [annotation]
    alternatives = []
    for member in get_args(annotation):
        alternatives += _list_alternatives(member)
    return alternatives


def _list_type_arguments(alternatives: Sequence[Any], container: type, position: int) -> list[Any]:
    """Return the types of what lists (or mappings) among the alternatives contain."""
    arguments = []
    for alternative in alternatives:
        if get_origin(alternative) is container:
            arguments.append(get_args(alternative)[position])
    if Any in alternatives:
        arguments.append(Any)
    return arguments


class Section(BaseModel):
    """A section of the configuration. Unknown keys, wrong types and infinite numbers are errors; values are immutable.

    Attributes:
        kind_field: field that names the kind of a section that exists in several kinds.
        shared_fields: fields of such a section that all kinds have, which an override by another kind therefore keeps.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    kind_field: ClassVar[str] = "kind"
    shared_fields: ClassVar[tuple[str, ...]] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _resolve_switch_words(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        return resolve_switch_words(value, [field.annotation])

    @classmethod
    def kinds(cls) -> list[type["Section"]]:
        """Return the classes of the kinds in which this section exists."""
        return [cls]

    @classmethod
    def required_fields(cls) -> list[str]:
        """Return the fields without default, except the one that names the kind."""
        required = [name for name, field in cls.model_fields.items() if field.is_required()]
        return [name for name in required if name != cls.kind_field]
