"""The models of a server, by the names that requests give them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ernie_vil2.apps.serving.batching import Batcher
from ernie_vil2.apps.serving.errors import RequestError
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.io.run_folder import find_run_folder
from ernie_vil2.io.terminal import join_names, make_printable

MAX_NAME_IN_MESSAGE = 100  # characters


@dataclass(frozen=True)
class ServedModel:
    """A model of a server.

    Attributes:
        name: how requests name it.
        model: the model.
        batcher: encodes for all requests.
    """

    name: str
    model: ErnieViL2
    batcher: Batcher


class ServedModels:
    """The models of a server, which have different names."""

    def __init__(self, models: Iterable[ServedModel]):
        self._models = {served.name: served for served in models}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def find(self, name: str) -> ServedModel:
        """Return the model of a name; without a name the only model.

        Raises:
            RequestError: 404, there is no such model.
        """
        if not name and len(self._models) == 1:
            return next(iter(self))
        if name not in self._models:
            names = join_names(list(self._models), separator=" or ")
            shortened = make_printable(name, max_length=MAX_NAME_IN_MESSAGE)
            message = f"there is no model {shortened!r} here; name {names}"
            raise RequestError(message, "model", "model_not_found", 404)
        return self._models[name]


def choose_names(models: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the sources of models by their names.

    Args:
        models: name and source of each; an empty name stands for `default_name`.

    Raises:
        ValueError: two models have the same name.
    """
    sources: dict[str, str] = {}
    for given_name, source in models:
        name = given_name or default_name(source)
        if name in sources:
            raise ValueError(f"{sources[name]} and {source} are both called {name}: give them names, NAME=MODEL")
        sources[name] = source
    return sources


def default_name(source: str) -> str:
    """Return the name of a model that has no other: that of its run or folder, without the path."""
    path = Path(source)
    run = find_run_folder(path)
    if run is None:
        run = path.with_suffix("") if path.is_file() else path
    run = run.parent / run.name.partition("@")[0]
    if run.name in ("", ".."):  # of `.`, or of `@best` in a run
        run = run.resolve()
    return run.name
