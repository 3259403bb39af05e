"""What an evaluation leaves: the table beside the published rows, a record as JSON, every query's rank as CSV."""

from __future__ import annotations

import csv
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.device.environment import environment
from ernie_vil2.evaluation.embedding_files import whole_numbers
from ernie_vil2.evaluation.pixel_baseline import PixelBaseline
from ernie_vil2.evaluation.protocol import Evaluation
from ernie_vil2.evaluation.protocols import PaperResult
from ernie_vil2.evaluation.ranking import TIE_RULES
from ernie_vil2.evaluation.retrieval import COLUMNS, DIRECTIONS, DirectionResult, Row, format_table
from ernie_vil2.evaluation.retrieval_page import write_retrieval_page
from ernie_vil2.io.checksums import sha256
from ernie_vil2.io.files import atomic_files, atomic_write, load_json, write_text
from ernie_vil2.io.run_folder import BEFORE
from ernie_vil2.io.terminal import counted

ENDINGS = re.compile(r"(\.(tar|tsv|csv|jsonl|parquet|json|txt|out)|_imgs\.tsv)$")
LONGEST_NAME = 160  # bytes; a file system takes 255
CSV_COLUMNS = ("result", "direction", "query_id", "query", "rank", "best_positive_id", "best_positive_score", "top_id",
               "top_score")  # fmt: skip
_FORMULA = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")  # wide forms: East Asian versions take them as well


def table_rows(
    title: str,
    evaluations: Mapping[str, Evaluation],
    baselines: Mapping[str, Mapping] | None = None,
    published: Sequence[PaperResult] = (),
) -> list[Row]:
    """The rows of one table, for `format_table`: a heading, results and baselines by label, chance, published rows.

    Chance is left out where it differs from result to result, as galleries of different sizes make it.
    """
    results = {label: evaluation.as_dict() for label, evaluation in evaluations.items()}
    rows: list[Row] = [(title, None)]
    rows += [(f"  {label}", values) for label, values in results.items()]
    rows += [(f"  {label}", dict(values)) for label, values in (baselines or {}).items()]
    chances = [values["chance"] for values in results.values()]
    if all(chance == chances[0] for chance in chances):
        rows.append(("  chance", chances[0]))
    return rows + [(f"  published: {row.label}", dict(row.values)) for row in published]


def whole_table(
    evaluations: Mapping[str, Evaluation],
    published: Sequence[PaperResult] = (),
    only: Iterable[tuple[str, str]] = (),
    baseline: PixelBaseline | None = None,
) -> list[Row]:
    """The rows of all queries, and for each field and value those of its queries alone."""
    table = []
    for chosen in (None, *only):
        results = {label: one.of_queries(*chosen) if chosen else one for label, one in evaluations.items()}
        baselines = {"nearest train image by pixels": baseline.of_queries(*(chosen or ()))} if baseline else {}
        title = queries_title(" = ".join(chosen) if chosen else "all queries", results.values())
        table += table_rows(title, results, baselines, [] if chosen else published)
    return table


def shown(evaluations: Mapping[str, Evaluation], table: Sequence[Row]) -> str:
    """The table, where a direction was scored, and the figures that stand in no column."""
    scored = any(evaluation.results for evaluation in evaluations.values())
    return "\n\n".join(filter(None, [format_table(table) if scored else "", format_measures(evaluations)]))


def queries_title(what: str, evaluations: Iterable[Evaluation]) -> str:
    """The heading of some rows: what their queries are, and how many of the images and texts they are."""
    asking = {}
    for evaluation in evaluations:
        counts = {}
        for result in evaluation.results.values():
            rank = result.ranking.rank
            some, every, side = np.count_nonzero(rank), len(rank), result.asked.sides[0]
            counts[f"{some:,} of " * (some < every) + counted(every, side)] = None
        asking[", ".join(counts)] = None
    return f"{what} ({'; '.join(asking)})"


def format_counts(evaluations: Mapping[str, Evaluation]) -> str:
    """What was scored: for each result its protocol, its galleries, and how they differ from the protocol's."""
    lines = []
    for label, evaluation in evaluations.items():
        encoded = evaluation.encoded
        lines += [
            f"{label}: protocol {evaluation.protocol.name}, {evaluation.sizes}",
            *(f"note: {sentence}" for sentence in evaluation.notes),
            *(
                f"{what}: {report}"
                for what, report in (("annotations", encoded.benchmark.rows), ("images", encoded.problems))
                if report.counts or report.remarks
            ),
        ]
    return _wrapped(lines)


def format_measures(evaluations: Mapping[str, Evaluation]) -> str:
    """Figures that stand in no column, one per line; empty where there are none."""
    lines = [
        f"{f'{label}: ' * (len(evaluations) > 1)}{name} {value:.2f}"
        for label, evaluation in evaluations.items()
        for name, value in evaluation.measures.items()
    ]
    return "\n".join(lines)


def format_definitions(evaluations: Mapping[str, Evaluation], published: Sequence[PaperResult] = ()) -> str:
    """What the figures of a table mean: each protocol and its tie rule in words, and the sources of published rows."""
    lines = []
    for protocol in dict.fromkeys(evaluation.protocol for evaluation in evaluations.values()):
        lines.append(f"protocol {protocol.name}: {protocol.definition}")
        lines.append(TIE_RULES[protocol.ties])
    lines += [f"published: {row.label}: {row.source}{f'; {row.note}' if row.note else ''}" for row in published]
    return _wrapped(lines)


def _wrapped(lines: Iterable[str]) -> str:
    # A line is wrapped with its own head first, what follows indented below it.
    return "\n".join(part for line in lines for text in line.splitlines() for part in
                     textwrap.wrap(text, 110, subsequent_indent="    ", break_on_hyphens=False))  # fmt: skip


def official_summary(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """A result of `official-rows` with the official evaluator's five measures by its names, in percent, 4 decimals."""
    names, values = {**{column: column for column in COLUMNS}, "mR": "mean_recall", "MRR": "mrr"}, evaluation.as_dict()
    return {
        direction: {name: round(values[direction][key], 4) for key, name in names.items()}
        for direction in reversed(DIRECTIONS)
    }


def checksums(files: Iterable[str | Path]) -> dict[str, str]:
    """The SHA-256 of each file, by its path."""
    return {str(path): sha256(path) for path in files}


def places(data: Sequence[str]) -> list[str]:
    """Absolute paths, so that they say the same in whichever folder they are read; addresses as they are."""
    return [place if "://" in place else str(Path(place).resolve()) for place in data]


def result_name(folder: Path, data: Sequence[str], more: Iterable[str] = ()) -> str:
    """What the results of some data are called in a folder.

    The name of the first path with that of the folder it is in, and with the folders above where other data has left
    results under that name. Results of the same data are replaced.

    Args:
        folder: of the results.
        data: as it was named.
        more: what distinguishes results of the same data: split, languages, protocols.
    """
    here = places(data)
    *parents, last = Path(here[0]).parts[1:] or ("data",)
    ending = [ENDINGS.sub("", last), *([f"and-{len(data) - 1}-more"] if len(data) > 1 else []), *more]
    for depth in range(1, max(2, len(parents) + 1)):
        name = re.sub(r"[^\w.+-]+", "_", "-".join([*parents[-depth:], *ending]))
        if len(name.encode()) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME // 4]}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
        if not _is_of_other_data(folder / f"{name}.json", here):
            break
    return name


def _is_of_other_data(path: Path, here: list[str]) -> bool:
    try:
        return load_json(path)["places"] != here
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError, TypeError):
        return True


def write_results(
    folder: str | Path,
    name: str,
    evaluations: Mapping[str, Evaluation],
    table: Sequence[Row],
    published: Sequence[PaperResult] = (),
    extra: Mapping[str, object] | None = None,
) -> list[Path]:
    """Writes `<name>.txt`, the table with what it means, `<name>.json`, a record, and `<name>.csv`, every query's rank.

    Args:
        folder: made if there is none.
        evaluations: by the label that each has in the table.
        table: as it was printed.
        published: rows that stand in the table.
        extra: more to be recorded: arguments, and the SHA-256 of weights and annotation files, see `checksums`.

    Returns:
        The files written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "results": {label: _record(evaluation) for label, evaluation in evaluations.items()},
        "published": [
            {"model": row.label, "values": row.values, "source": row.source, "note": row.note} for row in published
        ],
        "table": table,
        **(extra or {}),
        **environment(),
    }
    written = [folder / f"{name}.{suffix}" for suffix in ("txt", "json", "csv")]
    parts = (format_table(table), format_counts(evaluations), format_definitions(evaluations, published))
    write_text(written[0], "\n\n".join(parts) + "\n")
    write_text(written[1], json.dumps(record, ensure_ascii=False, indent=1))
    write_ranks(written[2], evaluations)
    return written


def write_evaluation(
    output: Path,
    name: str,
    evaluations: Mapping[str, Evaluation],
    table: Sequence[Row],
    published: Sequence[PaperResult],
    about: Mapping[str, Any],
    top_k: int | None = None,
    device: str = "cpu",
) -> list[Path]:
    """Writes all that an evaluation leaves, or nothing: `write_results`, a page for each result, the best answers.

    Args:
        about: what was run, for the record: `model` and `data` among it.
        top_k: how many answers to every query; None: these are not written.
    """
    with atomic_files(output) as folder:
        written = write_results(folder, name, evaluations, table, published, about)
        for label, evaluation in evaluations.items():
            stem = name if len(evaluations) == 1 else f"{name}-{label.replace(', ', '-').replace('/', '-')}"
            written.append(folder / f"{stem}.html")
            facts = {"Model": about["model"], "Data": " ".join(about["data"])}
            write_retrieval_page(written[-1], title=f"{name}: {label}", facts=facts, rows=table, evaluation=evaluation)
            if top_k and "text_to_image" in evaluation.results:
                written.append(folder / f"{stem}.predictions.jsonl")
                write_predictions(written[-1], evaluation, top_k, device)
        if top_k:
            written.append(folder / f"{name}.answers.jsonl")
            write_answers(written[-1], evaluations, top_k, device)
    return [output / path.name for path in written]


def _record(evaluation: Evaluation) -> dict:
    protocol, benchmark = evaluation.protocol, evaluation.encoded.benchmark
    return {
        "protocol": protocol.name,
        "definition": protocol.definition,
        "tie_rule": TIE_RULES[protocol.ties],
        "differences": evaluation.notes,
        "benchmark": {
            "name": benchmark.name,
            "images": len(benchmark.images),
            "texts": len(benchmark.texts),
            "pairs": len(benchmark.pairs),
            "queries": {way: int((one.ranking.rank > 0).sum()) for way, one in evaluation.results.items()},
            "files": [str(path) for path in benchmark.files],
            "rows": benchmark.rows.as_dict(),
            "encoded": evaluation.encoded.problems.as_dict(),
        },
        "result": evaluation.as_dict(),
    }


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """The records that `write_results` left in a folder, by name, what was scored before training first; other JSON is
    left out with a warning."""
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: (path.stem != BEFORE, path.name)):
        try:
            record = load_json(path)
            format_table(record["table"])
            for result in record["results"].values():
                "".join([*record["data"], *(result[key] for key in ("protocol", "definition", "tie_rule"))])
                "".join(result["differences"])
            found.append(record)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            print(f"warning: {path} is no record of an evaluation and left out ({error!r})", file=sys.stderr)
    return found


def write_ranks(path: str | Path, evaluations: Mapping[str, Evaluation]) -> None:
    """Writes a CSV file with one line per query, `CSV_COLUMNS`: its rank, its best right answer and what stands first.

    `result` is the evaluation's label and `query` the text or, for an image, its id. Of equal scores the answer of
    the lower row is named. What a spreadsheet would take for a formula has an apostrophe in front, see `cell_text`.
    """
    with atomic_write(path) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for label, evaluation in evaluations.items():
            for direction, result in evaluation.results.items():
                rows = _rank_rows(evaluation.encoded.benchmark, result)
                writer.writerows([cell_text(label), direction, *row] for row in rows)


def cell_text(text: str) -> str:
    """A text for a cell of CSV. With an apostrophe in front a spreadsheet shows it and computes nothing.

    That is so for texts that begin with `=`, `+`, `-`, `@`, their wide forms, a tab or a line end, and for those that
    begin so behind apostrophes of their own, so that `original_text` brings every text back.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def original_text(cell: str) -> str:
    """The text of which `cell_text` made a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _rank_rows(benchmark: Benchmark, result: DirectionResult) -> Iterator[list]:
    queries, gallery = map(benchmark.side, result.asked.sides)
    found, rows = result.ranking, result.asked.right
    for place in np.flatnonzero(found.rank):
        query = queries[result.asked.left[place]]
        yield [
            cell_text(query.id),
            cell_text(query.text if isinstance(query, BenchmarkText) else query.id),
            found.rank[place],
            cell_text(gallery[rows[found.positive[place]]].id),
            found.positive_score[place],
            cell_text(gallery[rows[found.top[place]]].id),
            found.top_score[place],
        ]


def write_answers(path: str | Path, evaluations: Mapping[str, Evaluation], k: int, device: str = "cpu") -> None:
    """Writes JSON lines, one per query, also of those whose right answers nobody knows: its k best answers.

    `{"result", "direction", "query_id", "query", "answers": [{"id", "score"}, ...]}`, best first.
    """
    with atomic_write(path) as aside, open(aside, "w", encoding="utf-8", newline="\n") as file:
        for label, evaluation in evaluations.items():
            for direction, result in evaluation.results.items():
                for query, answers in _answers(evaluation, result, k, device):
                    entry = {
                        "result": label,
                        "direction": direction,
                        "query_id": query.id,
                        "query": query.text if isinstance(query, BenchmarkText) else query.id,
                        "answers": [{"id": answer, "score": score} for answer, score in answers],
                    }
                    file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def write_predictions(path: str | Path, evaluation: Evaluation, k: int, device: str = "cpu") -> None:
    """Writes the k best images of every text in the form of Chinese-CLIP and MUGE: `{"text_id", "image_ids"}`.

    The ids are those of `whole_numbers`; where they are not the benchmark's own, these stand beside them, as `name` and
    `image_names`.
    """
    benchmark = evaluation.encoded.benchmark
    images, texts = (
        {row.id: number for row, number in zip(side, whole_numbers(side), strict=True)}
        for side in (benchmark.images, benchmark.texts)
    )
    with atomic_write(path) as aside, open(aside, "w", encoding="utf-8", newline="\n") as file:
        for query, answers in _answers(evaluation, evaluation.results["text_to_image"], k, device):
            names = [name for name, _ in answers]
            entry = {"text_id": texts[query.id], "image_ids": [images[name] for name in names]}
            if str(entry["text_id"]) != query.id:
                entry["name"] = query.id
            if list(map(str, entry["image_ids"])) != names:
                entry["image_names"] = names
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _answers(
    evaluation: Evaluation, result: DirectionResult, k: int, device: str
) -> Iterator[tuple[BenchmarkImage | BenchmarkText, list[tuple[str, float]]]]:
    """Every query with the ids and scores of its best answers."""
    queries, gallery = map(evaluation.encoded.benchmark.side, result.asked.sides)
    places = np.arange(len(result.asked.left))
    best = result.best_answers(evaluation.encoded.sides, places, min(k, len(result.asked.right)), device)
    for row, *found in zip(result.asked.left, *(one.tolist() for one in best), strict=True):
        yield (
            queries[row],
            [(gallery[result.asked.right[place]].id, score) for place, score in zip(*found, strict=True) if place >= 0],
        )
