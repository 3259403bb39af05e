"""The named protocols, in words and as `Protocol`s; docs/protocols.md has them all.

Protocols of retrieval are entries of `protocols.yaml`; a scorer with measures of its own has its protocols next to it.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from ernie_vil2.config import read_yaml
from ernie_vil2.evaluation.protocol import SENTENCES, Protocol
from ernie_vil2.registry import Registry, unknown

PATH = Path(__file__).with_name("protocols.yaml")


def _read_protocols() -> dict[str, Protocol]:
    """Read the protocols of retrieval by name; TypeError if an entry has a field that a protocol has not."""
    protocols = {}
    for name, entry in read_yaml(PATH).items():
        definition = entry.pop("definition").format(**SENTENCES)
        directions = tuple(entry.pop("directions", Protocol.directions))
        protocols[name] = Protocol(name, definition, directions=directions, **entry)
    return protocols


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    {
        **_read_protocols(),
        "cxc": "ernie_vil2.evaluation.scorers.cxc:CXC",
        "cxc-val": "ernie_vil2.evaluation.scorers.cxc:CXC_VAL",
        "cxc-directed": "ernie_vil2.evaluation.scorers.cxc:CXC_DIRECTED",
        "cxc-every-caption": "ernie_vil2.evaluation.scorers.cxc:CXC_EVERY_CAPTION",
        "cxc-without-co-captions": "ernie_vil2.evaluation.scorers.cxc:CXC_WITHOUT_CO_CAPTIONS",
        "cxc-correlation": "ernie_vil2.evaluation.scorers.cxc:CXC_CORRELATION",
    },
    [field.name for field in fields(Protocol)],
)
"""By name; those of scorers with protocols of their own are next to the scorer."""
ALL_CONVENTIONS = "all-conventions"
CONVENTIONS = {"any-of": "pairs", "first-text": "first-text", "row-label": "official-rows"}
"""The conventions in use, by the protocol that follows each: the same embeddings score very differently under them."""


def protocol(name: str) -> Protocol:
    """The protocol with a name, or UnknownName, which suggests the nearest."""
    if name not in PROTOCOLS and ":" not in name:
        raise unknown("protocol", name, [*PROTOCOLS, ALL_CONVENTIONS])
    return PROTOCOLS.find(name)


def conventions(rows_of: Protocol | None = None) -> dict[str, Protocol]:
    """The three conventions, on a whole benchmark or on the images and texts that another protocol selects."""
    found = {convention: protocol(name) for convention, name in CONVENTIONS.items()}
    if rows_of is None:
        return found
    return {
        convention: replace(
            scoring,
            definition=f"On the images and texts that {rows_of.name} selects. {scoring.definition}",
            first_images=rows_of.first_images,
            texts_per_image=scoring.texts_per_image or rows_of.texts_per_image,
        )
        for convention, scoring in found.items()
    }


def choose(names: Sequence[str]) -> dict[str, Protocol]:
    """Protocols by label, as a command line names them: a single one has the empty label.

    `all-conventions` names three, on the images and texts that the first other protocol selects, if there is one.

    Raises:
        ValueError: a name is unknown; see `protocol`.
    """
    own = [protocol(name) for name in names if name != ALL_CONVENTIONS]
    chosen = {one.name: one for one in own}
    if ALL_CONVENTIONS in names:
        chosen |= conventions(own[0] if own else None)
    return {"": own[0]} if len(chosen) == 1 else chosen


def scorer_of_protocols(names: Sequence[str]) -> str:
    """The name of the scorer that knows all of these protocols; errors as of `choose`."""
    scorers = [one.scorer for one in choose(names).values()]
    return next((name for name in scorers if name != Protocol.scorer), Protocol.scorer)
