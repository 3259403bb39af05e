"""Format of this package: a checkpoint of a run, or a converted model."""

from collections.abc import Mapping
from pathlib import Path

from ernie_vil2.config import dump_config, load_config
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY
from ernie_vil2.io.export_folder import WORD_RULES
from ernie_vil2.io.files import write_text
from ernie_vil2.io.run_folder import CONFIG, MODEL, MODEL_FILES, resolve_vocabulary
from ernie_vil2.models.dual_encoder import with_sizes
from ernie_vil2.models.lora import LORA_NAMES, merge_lora
from ernie_vil2.models.weights.files import INDEX_SUFFIX, detect_format, write_weights
from ernie_vil2.models.weights.format import (
    GoldenEmbeddings,
    ModelFiles,
    ReadOptions,
    StoredModel,
    check_no_dialect,
    find_first_file,
    make_stored_model,
)
from ernie_vil2.models.weights.integrity import write_model_integrity

LAYOUT = "ernie_vil2"


class RunFormat:
    """Weights by our names, and the configuration of the model next to them."""

    title = layout = LAYOUT
    settings_file = CONFIG
    dialects: Mapping[str, tuple[str, ...]] = {}

    def recognise(self, files: ModelFiles) -> Path | None:
        path, folder = files.path, files.folder
        weights = path if path.is_file() else find_first_file(path, (MODEL, f"{MODEL}{INDEX_SUFFIX}"))
        if weights is None or not (folder / CONFIG).is_file():
            return None
        # Folders of other projects may hold a config.yaml, too; then the names of the arrays decide.
        has_other_settings = any((folder / name).is_file() for name in ("config.json", "open_clip_config.json"))
        if weights.name == MODEL and not has_other_settings:
            return weights
        try:
            return weights if detect_format(files.read(weights)) == LAYOUT else None
        except ValueError:
            return None

    def read(self, files: ModelFiles, options: ReadOptions) -> StoredModel:
        weights = files.weights
        check_no_dialect(weights, options)
        arrays = files.read(weights)
        try:
            if any(name.endswith(LORA_NAMES) for name in arrays):
                arrays = merge_lora(arrays)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from None

        # The configuration may come from somebody else: load_config bounds what it reads.
        config = load_config(weights.with_name(CONFIG), is_untrusted=True)
        # Only that run left out tokens: a run that starts from its model must ask for that itself.
        image = config.Model.image
        if getattr(image, "keep_tokens", 1.0) != 1.0:
            model = config.Model.model_copy(update={"image": image.model_copy(update={"keep_tokens": 1.0})})
            config = config.model_copy(update={"Model": model})
        text = config.Model.text
        default: str | Path | None = text.vocabulary
        if not default and text.tokenizer in WORD_RULES:
            default = ERNIE_VOCABULARY
        return make_stored_model(LAYOUT, arrays, config, weights, options.vocabulary, default)

    def write(self, model: StoredModel, folder: Path, origin: Path | None, golden: GoldenEmbeddings) -> list[str]:
        for name, text in model.render_vocabulary().items():
            write_text(folder / name, text)
        write_weights(folder / MODEL, model.arrays)
        write_text(folder / CONFIG, dump_config(model.config))
        config = model.config.model_copy(update={"Model": with_sizes(model.config.Model)})
        write_model_integrity(folder, config, resolve_vocabulary(folder, MODEL_FILES), golden)
        return []


RUN = RunFormat()
