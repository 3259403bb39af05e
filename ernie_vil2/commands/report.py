"""Write report.html for a run: its curves, its evaluations, and a dozen queries with their best answers.

python tools/report.py --run runs/emoji --data demo_data/emoji-test.tar
"""

import argparse
from pathlib import Path

from ernie_vil2.commands.arguments import count, model, output_file, source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        required=True,
        type=model,
        metavar="RUN",
        help="run folder; RUN@best: with the answers of its best checkpoint",
    )
    parser.add_argument(
        "--data", nargs="+", required=True, type=source, metavar="FILE", help="where queries and answers come from"
    )
    parser.add_argument("--queries", type=count, default=12, help="captions shown, each in every language of the run")
    parser.add_argument("--seed", type=int, default=0, help="which captions are drawn")
    parser.add_argument("--output", type=output_file, metavar="FILE", help="file; default: <run>/report.html")


def run(args: argparse.Namespace) -> int:
    from ernie_vil2.config import load_config
    from ernie_vil2.data.sources import open_benchmark
    from ernie_vil2.evaluation.encoded import encode_benchmark
    from ernie_vil2.evaluation.examples import example_queries
    from ernie_vil2.evaluation.report import write_report
    from ernie_vil2.evaluation.results import read_evaluations
    from ernie_vil2.models.model_files import weights_path
    from ernie_vil2.pretrained import load_model
    from ernie_vil2.run_folder import run_of
    from ernie_vil2.training.run_log import read_log
    from ernie_vil2.training.run_page import config_facts, progress_facts

    checkpoint = weights_path(args.run).parent
    run = run_of(checkpoint) or Path(args.run)
    config = load_config(checkpoint / "config.yaml")
    records = read_log(run / "log.jsonl")
    evaluations = read_evaluations(run / "evaluation")
    facts = {"Checkpoint": checkpoint.name} | config_facts(config) | progress_facts(config, records)
    if evaluations:
        facts["Protocol"] = next(iter(evaluations[0]["results"].values()))["definition"]

    model = load_model(checkpoint, device="auto")
    queries, licences = [], set()
    for language in config.Views.languages:
        benchmark = open_benchmark(args.data, language=language, text_id=config.Data.text_id)
        licences |= {str(image.fields["license"]) for image in benchmark.images if "license" in image.fields}
        queries += example_queries(encode_benchmark(model, benchmark), language, args.queries, args.seed)
    if licences:
        facts["Licence of the images"] = ", ".join(sorted(licences))
    # Captions are drawn alike in every language: show them side by side.
    queries = [queries[start + row] for row in range(args.queries) for start in range(0, len(queries), args.queries)]

    output = Path(args.output) if args.output else run / "report.html"
    write_report(
        output,
        title=f"ERNIE-ViL 2.0: {run.name}",
        facts=facts,
        curves=records,
        table_rows=[tuple(row) for evaluation in evaluations for row in evaluation["table"]],
        queries=queries,
    )
    print(f"report: {output.resolve()}, with answers of {checkpoint}")
    return 0
