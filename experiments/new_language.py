"""Teach Chinese, by words alone, to models that know icons by English names, and measure which images it finds.

    python -m experiments.new_language                # for models E of the study of icons, seeds 0 to 2; 10 minutes
    python -m experiments.new_language --report       # train nothing, print the tables of what is there

The words are the names of the demo's drawings, a third of which is held out. A student learns the others, each as a
word and in two sentences. Queries are the names of icons that the drawings know, as a word and in another sentence.
The tower of model E has learnt the drawings' Chinese names with their images, so one student keeps it, and another
begins with a new tower, which knows no Chinese but those words. If it is stopped, the same command continues.
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
from experiments.ablation.measure import open_tests, read_translations, score_queries
from experiments.ablation.runs import train
from experiments.ablation.tables import NONE, Table, format_interval, format_markdown

STUDY = "configs/ablation/study.yaml"
CONFIG = "configs/finetune/new_language.yaml"
TEACHER = "E"
LEARNT_SENTENCES = [("the {}", "这个{}"), ("picture of {}", "{}的图片")]
"""Sentences in which words are learnt, English and Chinese."""
QUERY_FORMS = {"word": ("{}", "{}"), "sentence": ("{} in the picture", "图片里的{}")}
"""Forms of the queries, English and Chinese, by name."""
# Learning rate and batch suit small towers.
SETTINGS = [
    "Optimizer={learning_rate: 2e-3, weight_decay: 0.05}",
    "Schedule.warmup_steps=30",
    "Training.epochs=null",
    "Training.steps=400",
    "Training.global_batch=128",
    "Training.log_every=100",
    "Training.checkpoint_every=200",
    "Data.workers=0",
]
"""Settings of all students."""
STUDENTS: dict[str, list[str]] = {
    "same tower": [],
    "same tower, all words": [],
    "new tower": [
        "Model.text.name=ernie",
        "Model.text.width=256",
        "Model.text.depth=1",
        "Model.text.heads=4",
        "Model.allow=[text.*, text_projection.*]",
    ],
}
"""Further settings of each student. "All words" are the held-out ones as well."""
WORD_KINDS = ("learnt", "held out", "all")


def is_held_out(word: str) -> bool:
    """Return whether students do not learn a word: a third of the words, the same for all seeds."""
    return hash_id(word) % 3 == 0


def write_texts(path: Path, words: Mapping[str, str]) -> Path:
    """Write a table of parallel texts, each word alone and in `LEARNT_SENTENCES`, and return its path.

    Args:
        path: CSV file to write.
        words: Chinese words by English ones.
    """
    with atomic_write(path) as temporary_path, temporary_path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["caption_en", "caption_zh"])
        for english, chinese in words.items():
            for english_form, chinese_form in [("{}", "{}"), *LEARNT_SENTENCES]:
                table.writerow([english_form.format(english), chinese_form.format(chinese)])
    return path


def measure_recalls(
    encoder: ErnieViL2, encoded_tests: Iterable[EncodedBenchmark], words: Mapping[str, str]
) -> dict[str, float]:
    """Return R@10 of images by texts in percent, the mean over the queries of all tests.

    Args:
        encoder: encodes the queries.
        encoded_tests: tests with the embeddings of their images.
        words: Chinese words by English ones, all that may be asked for.

    Returns:
        Recalls by `<language>/<kind of words>/<form of the query>`.
    """
    # Of each key the sum of recalls, weighted by their numbers of queries, and that number.
    sums: dict[str, np.ndarray] = {}
    for encoded in encoded_tests:
        pairs_by_kind: dict[str, list[tuple[str, int]]] = {"learnt": [], "held out": []}
        for image, text in encoded.benchmark.pairs.tolist():
            word = encoded.benchmark.texts[text].text.casefold()
            if word in words:
                pairs_by_kind["held out" if is_held_out(word) else "learnt"].append((word, image))
        for kind, pairs in pairs_by_kind.items():
            if not pairs:
                continue
            for form, (english_form, chinese_form) in QUERY_FORMS.items():
                english_queries = {word: english_form.format(word) for word, _ in pairs}
                chinese_queries = {word: chinese_form.format(words[word]) for word, _ in pairs}
                for language, queries in (("en", english_queries), ("zh", chinese_queries)):
                    recalls, num_queries = score_queries(encoder, pairs, encoded.image_embeddings, queries.__getitem__)
                    summands = np.array([recalls["R@10"] * num_queries, num_queries])
                    for group in (kind, "all"):
                        key = f"{language}/{group}/{form}"
                        sums[key] = sums.get(key, np.zeros(2)) + summands
    return {key: float(recall_sum / num_queries) for key, (recall_sum, num_queries) in sums.items()}


def get_recalls(
    seed: int, folder: Path, overrides: Sequence[str], may_train: bool = True
) -> dict[str, dict[str, float]]:
    """Return the recalls of the teacher and of each student of a seed, which are stored in the folder.

    Args:
        seed: seed of the teacher's run and of the students.
        folder: folder of the students and of all recalls.
        overrides: further settings of the students.
        may_train: train and measure what is not there.
    """
    path = folder / f"seed-{seed}.json"
    recalls: dict[str, dict[str, float]] = load_json(path) if path.exists() else {}
    if not may_train or {TEACHER, *STUDENTS} <= recalls.keys():
        return recalls
    study = read_study(STUDY)
    checkpoint = train(study.find_run(f"table/{TEACHER}/{seed}").config)
    teacher, tests = load_model(checkpoint), open_tests(study.definition)
    encoded_tests = [encode_benchmark(teacher, benchmark) for benchmark in tests.benchmarks.values()]
    words = read_translations(study.definition.drawings or "", "en", "zh")
    recalls[TEACHER] = measure_recalls(teacher, encoded_tests, words)

    learnt_words = {english: chinese for english, chinese in words.items() if not is_held_out(english)}
    learnt_texts = write_texts(folder / "texts.csv", learnt_words)
    all_texts = write_texts(folder / "all-texts.csv", words)
    for student, settings in STUDENTS.items():
        if student in recalls:
            continue
        output = folder / f"{student.replace(', ', '-').replace(' ', '-')}-{seed}"
        run_settings = [
            f"Model.weights={checkpoint}",
            f"Data.train=[{all_texts if student.endswith('all words') else learnt_texts}]",
            f"Training.output={output}",
            f"Training.seed={seed}",
        ]
        config = load_config(CONFIG, [*run_settings, *SETTINGS, *settings, *overrides])
        recalls[student] = measure_recalls(load_model(train(config)), encoded_tests, words)
        write_json(path, recalls)
    return recalls


def make_tables(recalls: Mapping[int, Mapping[str, Mapping[str, float]]]) -> list[Table]:
    """Return a table for each form of queries, with the recalls of every model and their differences to the teacher's.

    Args:
        recalls: recalls of the models by seed, from `get_recalls`.
    """
    columns = [""]
    for kind in WORD_KINDS:
        columns += [f"{kind} zh", f"{kind} en", f"{kind} zh to {TEACHER}"]
    note = f"Means over {len(recalls)} seeds, in percent."
    tables = []
    for form in QUERY_FORMS:
        rows = []
        for model in (TEACHER, *STUDENTS):
            seeds = [seed for seed, recalls_by_model in recalls.items() if model in recalls_by_model]
            if not seeds:
                continue
            cells = [model]
            for kind in WORD_KINDS:
                chinese = {seed: recalls[seed][model][f"zh/{kind}/{form}"] for seed in seeds}
                english = {seed: recalls[seed][model][f"en/{kind}/{form}"] for seed in seeds}
                chinese_of_teacher = {seed: recalls[seed][TEACHER][f"zh/{kind}/{form}"] for seed in seeds}
                difference = format_interval(estimate_seed_difference(chinese, chinese_of_teacher))
                cells += [f"{fmean(chinese.values()):.1f}", f"{fmean(english.values()):.1f}"]
                cells.append(NONE if model == TEACHER else difference)
            rows.append(cells)
        tables.append(Table(f"R@10 of images by a {form}", columns, rows, note))
    return tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/new_language"), metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="train nothing, print the tables of what is there")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="Section.key=value")
    args = parser.parse_args(arguments)
    runtime.configure()
    args.output.mkdir(parents=True, exist_ok=True)
    if not args.report:
        # Recalls that are there are not measured again, so all must be of students with the same settings.
        overrides_file = args.output / "overrides.json"
        if overrides_file.exists() and load_json(overrides_file) != args.override:
            raise SystemExit(f"error: {args.output} has students with other -o: name another folder as --output")
        write_json(overrides_file, args.override)
    recalls = {}
    for seed in args.seeds:
        recalls_of_seed = get_recalls(seed, args.output, args.override, may_train=not args.report)
        if recalls_of_seed:
            recalls[seed] = recalls_of_seed
    if not recalls:
        raise SystemExit(f"{args.output} holds no recalls; leave out --report to train and measure")
    print("\n\n".join(map(format_markdown, make_tables(recalls))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
