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
from pathlib import Path

from ernie_vil2.cli import encoding
from ernie_vil2.cli.arguments import count, file_name, input_file, input_path, output_folder, source
from ernie_vil2.device.launch import start_ranks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    encoding.add_model_options(parser)
    encoding.add_data_options(parser)
    add = parser.add_argument
    add("--language", nargs="+", help="of the captions, where they have several; default: the run's, or all")
    add("--embeddings", type=input_path, metavar="PATH", help="score these, instead of a model on data")
    add("--annotations", type=input_file, metavar="FILE", help="what names the rows of --embeddings")
    add("--protocol", nargs="+", default=["pairs"], metavar="NAME",
        help="default: pairs; all-conventions: any-of, first-text, row-label side by side")  # fmt: skip
    add("--check", action="store_true", help="only read the data, and report what is wrong with them")
    add("--only", action="append", default=[], metavar="FIELD=VALUE",
        help="more rows for the queries whose sample says so; galleries stay whole")  # fmt: skip
    add("--top-k", type=count, metavar="K", help="write the K best answers to every query; 10 for MUGE's test split")
    add("--pixel-baseline", nargs="+", type=source, default=[], metavar="TRAIN_FILE",
        help="one more row: the text of the nearest training image by pixels")  # fmt: skip
    add("--label", default="model", help="what the model is called in the table")
    add("--name", type=file_name, help="of the files written; default: the data's and the protocols'")
    add("--output", type=output_folder, metavar="FOLDER", help="default: <run>/evaluation, else evaluation")
    add("--no-cache", action="store_true", help="do not keep embeddings in the output folder")
    add("--block", type=count, default=1024, help="rows of either side that are scored at once")


def run(args: argparse.Namespace) -> int:
    only = [text.split("=", 1) for text in args.only]
    if any(len(pair) != 2 for pair in only):
        raise ValueError("--only takes FIELD=VALUE, for example --only kind=object")
    if bool(args.embeddings) == bool(args.data) or (args.data and not (args.checkpoint or args.check)):
        raise ValueError("give --checkpoint and --data, --check and --data, or --embeddings")
    if (code := start_ranks(args.processes, args.device, "--device cpu")) is not None:
        return code

    from ernie_vil2.evaluation import results
    from ernie_vil2.evaluation.embedding_files import read_embeddings
    from ernie_vil2.evaluation.protocol import score
    from ernie_vil2.evaluation.protocols import choose, paper_results

    protocols = choose(args.protocol)
    if args.check:
        return encoding.check_data(args, list(protocols.values()))
    if args.embeddings:
        inputs, files, device = {args.label: read_embeddings(args.embeddings, args.annotations, args.split)}, [], "cpu"
    else:
        inputs, files, device = encoding.encode_languages(args, list(protocols.values()))
    if encoding.RANK != 0:
        return 0
    evaluations = {
        ", ".join(filter(None, [label, convention])): score(encoded, scoring, args.block, device, not args.top_k)
        for label, encoded in inputs.items()
        for convention, scoring in protocols.items()
    }
    published = [row for name in args.protocol for row in paper_results(name)]
    baseline = encoding.pixel_baseline(args, list(protocols.values())) if args.pixel_baseline else None
    table = results.whole_table(evaluations, published, only, baseline)
    model, data = str(args.checkpoint or args.embeddings), list(map(str, args.data or [args.embeddings]))
    print(f"\n{results.shown(evaluations, table)}\n\nmodel {model}, data {' '.join(data)}")
    print(results.format_counts(evaluations))

    output = args.output or Path("evaluation")
    more = [*filter(None, [args.split]), *(args.language or []), *(one for one in args.protocol if one != "pairs")]
    name = args.name or results.result_name(output, data, more)
    about = {"model": model, "data": data, "places": results.places(data), "checksums": results.checksums(files)}
    written = results.write_evaluation(output, name, evaluations, table, published, about, args.top_k, device)
    print("\nwritten:", *written, sep="\n  ")
    return 0
