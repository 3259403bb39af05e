"""Chinese for models of icons with English names, from words alone, and what it finds without a change to any image.

    python -m experiments.new_language                # models E of the study of icons, seeds 0 to 2; some 10 minutes
    python -m experiments.new_language --report       # trains nothing: the table of what is there

The words are the names of the demo's drawings, of which a third is held out. A student learns from the rest, each as a
word and in two sentences; queries are the names of icons that the drawings know, as a word and in a sentence of another
form. Model E learnt from the drawings' Chinese names too, with their images; the new tower begins at random and knows
no Chinese but that of the words. Stopped, the command goes on.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from ernie_vil2.config import load_config
from ernie_vil2.data.samples import hash_id
from ernie_vil2.device import runtime
from ernie_vil2.encoder import ErnieViL2, load_model
from ernie_vil2.evaluation.encoded import EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.intervals import estimate_seed_difference
from ernie_vil2.io.files import atomic_write, load_json, write_json
from experiments.ablation.definition import read_study
from experiments.ablation.measure import names_of, open_tests, recall_of_texts
from experiments.ablation.runs import trained
from experiments.ablation.tables import Table, as_markdown, shown

STUDY, CONFIG = "configs/ablation/study.yaml", "configs/finetune/new_language.yaml"
LEARNT = [
    ("the {}", "这个{}"),
    ("picture of {}", "{}的图片"),
]  # sentences that words are learnt in, English and Chinese
FORMS = {"word": ("{}", "{}"), "sentence": ("{} in the picture", "图片里的{}")}  # in which words are queries
STUDENTS = {
    "same tower": [],
    "same tower, all words": [],
    "new tower": ["Model.text.name=ernie", "Model.text.width=256", "Model.text.depth=1", "Model.text.heads=4",
                  "Model.allow=[text.*, text_projection.*]"],
}  # fmt: skip
"""By name what is different in their training."""


def is_held_out(word: str) -> bool:
    """A third of the words, the same for all seeds."""
    return hash_id(word) % 3 == 0


def write_texts(path: Path, words: Mapping[str, str]) -> Path:
    """Writes a table of parallel texts: each word, and the sentences that it is learnt in."""
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["caption_en", "caption_zh"])
        for english, chinese in words.items():
            table.writerows((en.format(english), zh.format(chinese)) for en, zh in [("{}", "{}"), *LEARNT])
    return path


def recalls(encoder: ErnieViL2, encoded: Iterable[EncodedBenchmark], words: Mapping[str, str]) -> dict[str, float]:
    """R@10 in percent of images by texts, by language, kind of words, and form; means over the queries of all tests.

    The images are as they were encoded; `words` are Chinese by English, of all that may be asked for.
    """
    sums: dict[str, np.ndarray] = {}
    for each in encoded:
        texts = each.benchmark.texts
        known = [(texts[text].text.casefold(), image) for image, text in each.benchmark.pairs.tolist()]
        for kind, held_out in (("learnt", False), ("held out", True)):
            chosen = [(word, image) for word, image in known if word in words and is_held_out(word) == held_out]
            for form, sentences in FORMS.items() if chosen else ():
                for language, sentence in zip(("en", "zh"), sentences, strict=True):
                    asked = {word: sentence.format(words[word] if language == "zh" else word) for word, _ in chosen}
                    recall, count = recall_of_texts(chosen, encoder, each.image_embeddings, asked.__getitem__)
                    found = np.array([recall["R@10"] * count, count])
                    for part in (kind, "all"):
                        key = f"{language}/{part}/{form}"
                        sums[key] = sums.get(key, 0) + found
    return {key: float(total / count) for key, (total, count) in sums.items()}


def measured(seed: int, folder: Path, overrides: Sequence[str], train: bool) -> dict[str, dict[str, float]]:
    """By student, and under "E" of their teacher, the recalls of a seed; what is not there is made if `train`."""
    path = folder / f"seed-{seed}.json"
    found = load_json(path) if path.exists() else {}
    if not train or {"E", *STUDENTS} <= found.keys():
        return found
    study = read_study(STUDY)
    source = trained(study.run(f"table/E/{seed}").config)
    teacher, tests = load_model(source), open_tests(study.definition)
    words = dict(names_of(study.definition.drawings or "", "en", "zh"))
    encoded = [encode_benchmark(teacher, one) for one in tests.benchmarks.values()]
    found["E"] = recalls(teacher, encoded, words)
    some = write_texts(folder / "texts.csv", {en: zh for en, zh in words.items() if not is_held_out(en)})
    every = write_texts(folder / "all-texts.csv", words)
    for name, changes in STUDENTS.items():
        if name not in found:
            texts = every if name.endswith("all words") else some
            output = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            settings = [f"Model.weights={source}", f"Data.train=[{texts}]", f"Training.output={output}",
                        f"Training.seed={seed}", *SETTINGS, *changes, *overrides]  # fmt: skip
            found[name] = recalls(load_model(trained(load_config(CONFIG, settings))), encoded, words)
            write_json(path, found)
    return found


SETTINGS = [
    "Optimizer={learning_rate: 2e-3, weight_decay: 0.05}", "Schedule.warmup_steps=30", "Training.epochs=null",
    "Training.steps=400", "Training.global_batch=128", "Training.log_every=100", "Training.checkpoint_every=200",
    "Data.workers=0",
]  # fmt: skip
"""Of all students: the rate and the batch of small towers."""


def tables(found: Mapping[int, Mapping[str, Mapping[str, float]]]) -> list[Table]:
    """A table of each form: of every model the recalls over the seeds, and how the Chinese ones differ from E's."""
    kinds, made = ("learnt", "held out", "all"), []
    for form in FORMS:
        rows = []
        for model in ("E", *STUDENTS):
            of = {seed: one for seed, one in found.items() if model in one}
            cells = [model]
            for kind in kinds:
                chinese, english = ([one[model][f"{way}/{kind}/{form}"] for one in of.values()] for way in ("zh", "en"))
                teacher = {seed: one["E"][f"zh/{kind}/{form}"] for seed, one in of.items()}
                difference = shown(estimate_seed_difference(dict(zip(of, chinese, strict=True)), teacher))
                cells += [f"{fmean(chinese):.1f}", f"{fmean(english):.1f}", "–" if model == "E" else difference]
            rows.append(cells)
        columns = [f"{kind} {column}" for kind in kinds for column in ("zh", "en", "zh to E")]
        note = f"Means over {len(found)} seeds, in percent."
        made.append(Table(f"R@10 of images by a {form}", ["", *columns], rows, note))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/new_language"), metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="train nothing: the table of what is there")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="Section.key=value")
    args = parser.parse_args(arguments)
    runtime.configure()
    args.output.mkdir(parents=True, exist_ok=True)
    found = {seed: measured(seed, args.output, args.override, not args.report) for seed in args.seeds}
    print("\n\n".join(map(as_markdown, tables({seed: one for seed, one in found.items() if one}))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
