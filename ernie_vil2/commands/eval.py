"""Score a model on image-text retrieval by a named protocol: R@1, R@5, R@10 and mean recall in both directions.

    python tools/eval_retrieval.py --checkpoint runs/emoji --data demo_data/emoji-test.tar --language zh en
    python tools/eval_retrieval.py --checkpoint model.pdparams --data coco-cn-version1805v1.1 --protocol coco-cn-test
    python tools/eval_retrieval.py --checkpoint runs/mine --data flickr30k --protocol flickr30k-test all-conventions
    python tools/eval_retrieval.py --data coco-cn-version1805v1.1 --protocol coco-cn-test --check
    python tools/eval_retrieval.py --embeddings cross_modal_embeddings.out --protocol official-rows

Prints a table and what it means, and writes it as JSON, the rank of every query as CSV, and a page with the worst
and the best queries. Finished embeddings are kept in the output folder: an interrupted command goes on with them.
docs/benchmarks.md shows the folders that --data takes, docs/protocols.md defines the protocols.
"""

import argparse
import sys
from pathlib import Path

from ernie_vil2.commands import encoding
from ernie_vil2.commands.arguments import count, file_name, input_file, input_path, output_folder, source
from ernie_vil2.launch import start_ranks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    encoding.add_model_options(parser)
    encoding.add_data_options(parser)
    parser.add_argument("--language", nargs="+",
                        help="of the captions, where they have several; default: the run's, or all")  # fmt: skip
    parser.add_argument(
        "--embeddings", type=input_path, metavar="PATH", help="score these, computed before, instead of a model on data"
    )
    parser.add_argument("--annotations", type=input_file, metavar="FILE", help="what names the rows of --embeddings")
    parser.add_argument("--protocol", nargs="+", default=["pairs"], metavar="NAME",
                        help="default: pairs; all-conventions: any-of, first-text, row-label side by side")  # fmt: skip
    parser.add_argument("--check", action="store_true", help="only read the data, and report what is wrong with them")
    parser.add_argument("--only", action="append", default=[], metavar="FIELD=VALUE",
                        help="more rows for the queries whose sample says so; galleries stay whole")  # fmt: skip
    parser.add_argument("--top-k", type=count, metavar="K",
                        help="write the K best answers to every query; 10 for MUGE's test split")  # fmt: skip
    parser.add_argument("--pixel-baseline", nargs="+", type=source, default=[], metavar="TRAIN_FILE",
                        help="one more row: the text of the nearest training image by pixels")  # fmt: skip
    parser.add_argument("--label", default="model", help="what the model is called in the table")
    parser.add_argument("--name", type=file_name, help="of the files written; default: the data's and the protocols'")
    parser.add_argument(
        "--output", type=output_folder, metavar="FOLDER", help="default: <run>/evaluation, else evaluation"
    )
    parser.add_argument("--no-cache", action="store_true", help="do not keep embeddings in the output folder")
    parser.add_argument("--block", type=count, default=1024, help="rows of either side that are scored at once")


def run(args: argparse.Namespace) -> int:
    args.only = [tuple(text.split("=", 1)) for text in args.only]
    if any(len(pair) != 2 for pair in args.only):
        raise ValueError("--only takes FIELD=VALUE, for example --only kind=object")
    if bool(args.embeddings) == bool(args.data) or (args.data and not (args.checkpoint or args.check)):
        raise ValueError("give --checkpoint and --data, --check and --data, or --embeddings")
    if (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code
    return check(args) if args.check else evaluate(args)


def check(args: argparse.Namespace) -> int:
    """Prints what is in the data; 0 if all of it can be used and is what every protocol expects."""
    from tqdm import tqdm

    from ernie_vil2.evaluation.check import check_benchmark
    from ernie_vil2.evaluation.protocol import select
    from ernie_vil2.evaluation.protocols import choose

    protocols = list(choose(args.protocol).values())
    good = True
    for language, found in encoding.open_data(args, args.language, split=protocols[0].split).items():
        benchmark = select(found, protocols)
        with tqdm(total=len(benchmark.images), unit="image", desc="reading", file=sys.stdout) as bar:
            report = check_benchmark(benchmark, progress=bar.update)
        print(f"captions in {language}\n" * bool(language) + str(report))
        for scoring in protocols:
            part = scoring.select(benchmark)
            wrong = scoring.differences(part)
            counts = f"{len(part.images):,} images, {len(part.texts):,} texts, {len(part.pairs):,} pairs"
            print(*wrong or [f"protocol {scoring.name}: {counts}{', as it expects' * bool(scoring.expected)}"])
            good &= not wrong
        good &= report.good
    return 0 if good else 1


def evaluate(args: argparse.Namespace) -> int:
    from ernie_vil2.evaluation.embedding_files import read_embeddings
    from ernie_vil2.evaluation.evaluator import score
    from ernie_vil2.evaluation.protocols import choose

    protocols = choose(args.protocol)
    files, device = [], "cpu"
    if args.embeddings:
        inputs = {args.label: read_embeddings(args.embeddings, args.annotations, args.split)}
    else:
        inputs, files, device = encode(args, list(protocols.values()))
    if encoding.RANK == 0:
        evaluations = {
            ", ".join(filter(None, [label, convention])): score(encoded, scoring, args.block, device, not args.top_k)
            for label, encoded in inputs.items()
            for convention, scoring in protocols.items()
        }
        show(args, evaluations, files, device)
    return 0


def encode(args: argparse.Namespace, protocols: list) -> tuple[dict, list[Path], str]:
    """Embeddings by label, the files they come from, and the device they were computed on."""
    import paddle

    from ernie_vil2.evaluation.protocol import select
    from ernie_vil2.run_folder import run_of

    model, weights = encoding.load(args)
    run = run_of(weights.parent)
    args.output = args.output or (run and run / "evaluation")
    cache = None if args.no_cache else (args.output or Path("evaluation")) / "embeddings"
    inputs, files = {}, [weights]
    languages = model.config.Views.languages
    for language, found in encoding.open_data(args, args.language, languages, protocols[0].split).items():
        benchmark = select(found, protocols)
        files += [path for path in benchmark.files if path not in files]
        label = ", ".join(filter(None, [args.label, language]))
        inputs[label] = encoding.encode_data(model, benchmark, cache, language)
    return inputs, files, paddle.get_device()


def show(args: argparse.Namespace, evaluations: dict, files: list[Path], device: str) -> None:
    """Prints the table, and writes all that an evaluation leaves."""
    from ernie_vil2.evaluation.paper_results import paper_results
    from ernie_vil2.evaluation.results import (
        checksums,
        format_counts,
        format_measures,
        places,
        queries_title,
        result_name,
        table_rows,
        write_answers,
        write_predictions,
        write_results,
    )
    from ernie_vil2.evaluation.retrieval import format_table
    from ernie_vil2.evaluation.retrieval_page import write_retrieval_page
    from ernie_vil2.files import files_written_whole

    published = [row for name in args.protocol for row in paper_results(name)]
    split = next(iter(evaluations.values())).protocol.split
    baseline = pixel_baseline(args, split) if args.pixel_baseline else None
    table = []
    for only in (None, *args.only):
        results = {label: one.of_queries(*only) if only else one for label, one in evaluations.items()}
        baselines = {"nearest train image by pixels": baseline.of_queries(*(only or ()))} if baseline else {}
        title = queries_title(" = ".join(only) if only else "all queries", results.values())
        table += table_rows(title, results, baselines, [] if only else published)

    model, data = str(args.checkpoint or args.embeddings), list(map(str, args.data or [args.embeddings]))
    parts = [format_table(table), format_measures(evaluations)]
    if not any(evaluation.results for evaluation in evaluations.values()):
        parts = parts[1:]
    parts.append(f"model {model}, data {' '.join(data)}\n{format_counts(evaluations)}")
    print("", *filter(None, parts), sep="\n\n")

    output = args.output or Path("evaluation")
    more = [*filter(None, [args.split]), *(args.language or []), *(one for one in args.protocol if one != "pairs")]
    name = args.name or result_name(output, data, more)
    extra = {"model": model, "data": data, "places": places(data), "checksums": checksums(files)}
    with files_written_whole(output) as folder:
        written = write_results(folder, name, evaluations, table, published, extra)
        for label, evaluation in evaluations.items():
            stem = name if len(evaluations) == 1 else f"{name}-{label.replace(', ', '-').replace('/', '-')}"
            written.append(folder / f"{stem}.html")
            facts = {"Model": model, "Data": " ".join(data)}
            write_retrieval_page(written[-1], title=f"{name}: {label}", facts=facts, rows=table, evaluation=evaluation)
            if args.top_k and "text_to_image" in evaluation.results:
                written.append(folder / f"{stem}.predictions.jsonl")
                write_predictions(written[-1], evaluation, args.top_k, device)
        if args.top_k:
            written.append(folder / f"{name}.answers.jsonl")
            write_answers(written[-1], evaluations, args.top_k, device)
    print("\nwritten:", *(output / path.name for path in written), sep="\n  ")


def pixel_baseline(args: argparse.Namespace, split: str | None):
    """What the nearest training image by pixels reaches on the data; `split` as in `encoding.open_data`."""
    from ernie_vil2.data.sources import open_sources
    from ernie_vil2.evaluation.pixel_baseline import pixel_baseline

    train = open_sources(args.pixel_baseline, args.text_id)
    baseline = pixel_baseline(train, open_sources(args.data, args.text_id, args.split, args.images, default=split))
    if baseline.bad_samples.counts:
        print(f"pixel baseline: {baseline.bad_samples}")
    return baseline
