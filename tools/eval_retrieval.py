"""Score a checkpoint on image-text retrieval: R@1, R@5, R@10 and mean recall in both directions.

    python tools/eval_retrieval.py --checkpoint runs/emoji --data demo_data/emoji-test.tar --language zh en
    python tools/eval_retrieval.py --checkpoint runs/emoji --data my_pairs.tsv

Prints a table and writes it as JSON, by default into <run>/evaluation/.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="run folder (its newest checkpoint) or checkpoint folder")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="tar shards or official TSV files")
    parser.add_argument("--language", nargs="+", default=None, help="languages of the captions; default: the run's own")
    parser.add_argument("--only", action="append", default=[], metavar="FIELD=VALUE",
                        help="one more row for the queries whose sample says so; galleries stay whole")  # fmt: skip
    parser.add_argument("--pixel-baseline", nargs="+", default=[], metavar="TRAIN_FILE",
                        help="one more row: the text of the nearest training image by pixels")  # fmt: skip
    parser.add_argument("--name", default=None, help="name of the result file; default: that of the first data file")
    parser.add_argument("--output", default=None, help="folder of the result; default: <run>/evaluation")
    parser.add_argument("--batch-size", type=int, default=256, help="rows encoded at once")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu, gpu:0, ...")
    parser.add_argument("--block", type=int, default=1024, help="queries scored at once")
    args = parser.parse_args()
    only = [tuple(text.split("=", 1)) for text in args.only]
    if any(len(pair) != 2 for pair in only):
        parser.error("--only takes FIELD=VALUE, for example --only kind=object")
    try:
        evaluate(args, only)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(args: argparse.Namespace, only: list[tuple[str, str]]) -> None:
    from tqdm import tqdm

    from ernie_vil2.config import load_config
    from ernie_vil2.data.sources import open_sources
    from ernie_vil2.evaluation.encoder import Encoder, checkpoint_folder
    from ernie_vil2.evaluation.pixel_baseline import pixel_baseline
    from ernie_vil2.evaluation.retrieval import TIE_RULE, format_table
    from ernie_vil2.evaluation.retrieval_set import PROTOCOL, evaluate_source
    from ernie_vil2.files import write_text
    from ernie_vil2.training.run_log import environment

    checkpoint = checkpoint_folder(args.checkpoint)
    config = load_config(checkpoint / "config.yaml")
    source = open_sources(args.data, config.Data.text_id)
    encoder = Encoder.load(checkpoint, args.batch_size, args.device)
    languages = args.language or list(config.Views.languages)

    groups = [("all queries", None), *((f"{field} = {value}", (field, value)) for field, value in only)]
    groups = [(title, query, []) for title, query in groups]
    for language in languages:
        with tqdm(total=len(source), unit="sample", desc=f"encoding, {language}", file=sys.stdout) as bar:
            evaluation = evaluate_source(encoder, source, language, args.block, bar.update)
        for _, query, rows in groups:
            result = evaluation.of_queries(*query) if query else evaluation.result
            rows.append((f"  model, {language}", result.as_dict()))
        print(evaluation.benchmark.bad_samples)
    baseline = None
    if args.pixel_baseline:
        baseline = pixel_baseline(open_sources(args.pixel_baseline, config.Data.text_id), source)
    table = []
    for title, query, rows in groups:
        chance = ("  chance", rows[0][1]["chance"])
        if baseline:
            rows.append(("  nearest train image by pixels", baseline.of_queries(*(query or ()))))
        counts = f"{len(evaluation.result.image_ranks)} images, {len(evaluation.result.text_ranks)} texts"
        table += [(f"{title} ({counts if not query else 'same galleries'})", None), *rows, chance]

    print(f"\ncheckpoint {checkpoint}, data {' '.join(args.data)}\nprotocol: {PROTOCOL}\n{TIE_RULE}\n")
    print(format_table(table))
    folder = Path(args.output) if args.output else checkpoint.parents[1] / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{args.name or Path(args.data[0]).stem}.json"
    record = {
        "checkpoint": str(checkpoint),
        "data": args.data,
        "languages": languages,
        "protocol": PROTOCOL,
        "tie_rule": TIE_RULE,
        "table": table,
        "bad_samples": evaluation.benchmark.bad_samples.as_dict(),
        **environment(),
    }
    write_text(path, json.dumps(record, ensure_ascii=False, indent=1))
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    sys.exit(main())
