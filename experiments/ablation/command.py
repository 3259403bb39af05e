"""Train and compare the models of a study on several seeds: tables with intervals, and a page.

    python tools/study.py configs/ablation/study.yaml                   # skip finished runs, resume stopped ones
    python tools/study.py configs/ablation/study.yaml --processes 2     # make two runs at a time
    python tools/study.py configs/ablation/study.yaml --small           # make a tenth of the study
    python tools/study.py configs/ablation/study.yaml --report          # train nothing, report what is there
    python tools/study.py configs/cheaper/study.yaml --step-cost 20     # find the steps that take equal CPU time
    python tools/study.py --results docs/ablation/results.json --output page

Every run has an ordinary run folder, <output>/<group>/<model>-<seed>, with its figures in evaluation/study.json.
<output>/ then holds results.json, study.html and tables.md. They name the runs that are missing, were stopped, or
were trained or scored on other data. docs/notes/ablation.md reports the study of the paper's Table 4.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from ernie_vil2.cli.arguments import configuration, count, input_file, output_folder
from ernie_vil2.device.extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("study", nargs="?", type=configuration, metavar="STUDY", help="YAML file of the study")
    parser.add_argument("--small", action="store_true", help="make the small form of the study, in <output>-small")
    parser.add_argument("--processes", type=count, default=1, help="number of runs at a time")
    parser.add_argument("--report", action="store_true", help="train and score nothing")
    parser.add_argument(
        "--step-cost", type=count, metavar="STEPS", help="only measure the CPU time of so many steps of each model"
    )
    parser.add_argument(
        "--results", type=input_file, metavar="FILE", help="make tables and page from a results.json, without the runs"
    )
    parser.add_argument(
        "--output", type=output_folder, metavar="FOLDER", help="folder of tables and page; default: the study's, or ."
    )
    # A name that is empty is refused with an example of one.
    parser.add_argument("--run", type=str, metavar="GROUP/MODEL/SEED", help="make only this run, in this process")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from experiments.ablation.collect import collect, read_results
    from experiments.ablation.definition import read_study
    from experiments.ablation.runs import make_all_runs, make_run
    from experiments.ablation.step_cost import format_step_costs, measure_step_costs

    if bool(args.study) == bool(args.results):
        raise ValueError("give a study, or --results with a results.json")
    require("the intervals of a study", "scipy")
    if args.results:
        write_tables(read_results(args.results), args.output or Path(), with_results=False)
        return 0
    study = read_study(args.study, args.small)
    if args.run is not None:
        make_run(study, study.find_run(args.run))
        return 0
    if args.step_cost:
        print("\n".join(format_step_costs(study, measure_step_costs(study, args.step_cost))))
        return 0
    exit_codes: dict[str, int] = {}
    if not args.report:
        exit_codes = make_all_runs(study, [sys.executable, *sys.argv, "--run"], args.processes)
    write_tables(collect(study), args.output or study.output, with_results=True)
    return 1 if any(exit_codes.values()) else 0


def write_tables(results: dict[str, Any], folder: Path, with_results: bool) -> None:
    """Print the tables of results, and write them, the page and, on request, the results into a folder."""
    from ernie_vil2.io.files import atomic_files, write_json, write_text
    from experiments.ablation.tables import format_markdown, format_text, make_tables, write_study_page

    tables = make_tables(results)
    with atomic_files(folder) as temporary_folder:
        if with_results:
            write_json(temporary_folder / "results.json", results)
        write_text(temporary_folder / "tables.md", "\n\n".join(map(format_markdown, tables)) + "\n")
        write_study_page(temporary_folder / "study.html", results)
    print("\n\n".join(map(format_text, tables)))
    print(f"\nwritten: {folder / 'study.html'}, {folder / 'tables.md'}")
