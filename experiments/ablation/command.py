"""Train and compare the models of a study on several seeds: tables with intervals, and a page.

    python tools/study.py configs/ablation/study.yaml                   # runs, resumes, skips what is done
    python tools/study.py configs/ablation/study.yaml --processes 2     # two runs at a time
    python tools/study.py configs/ablation/study.yaml --small           # a tenth of it
    python tools/study.py configs/ablation/study.yaml --report          # trains nothing: what is there so far
    python tools/study.py configs/cheaper/study.yaml --step-cost 20     # the steps that take equal CPU time
    python tools/study.py --results docs/ablation/results.json --output page

Every run is an ordinary run folder, <output>/<group>/<model>-<seed>, with what it was measured by in
evaluation/study.json. <output>/ then holds results.json, study.html and tables.md; runs that are missing, were
stopped, or disagree on their data are named there. docs/notes/ablation.md has what was found.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from ernie_vil2.cli.arguments import configuration, count, input_file, output_folder
from ernie_vil2.device.extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("study", nargs="?", type=configuration, metavar="STUDY", help="YAML file that defines it")
    add("--small", action="store_true", help="its small form, in <output>-small")
    add("--processes", type=count, default=1, help="runs at a time")
    add("--report", action="store_true", help="train and measure nothing")
    add("--step-cost", type=count, metavar="STEPS", help="only measure the CPU time of so many steps of each model")
    add("--results", type=input_file, metavar="FILE", help="tables and page of a results.json, without the runs")
    add("--output", type=output_folder, metavar="FOLDER", help="of tables and page; default: the study's, or .")
    add("--run", type=str, metavar="GROUP/MODEL/SEED", help="make this run alone, in this process; trains nothing else")


def run(args: argparse.Namespace) -> int:
    from experiments.ablation.collect import collect, read_results
    from experiments.ablation.definition import read_study
    from experiments.ablation.runs import make_all, make_run
    from experiments.ablation.step_cost import format_step_costs, measure_step_costs

    if bool(args.study) == bool(args.results):
        raise ValueError("give a study, or --results with a results.json")
    require("the intervals of a study", "scipy")
    if args.results:
        return write(read_results(args.results), args.output or Path(), new=False)
    study = read_study(args.study, args.small)
    if args.run is not None:
        make_run(study, study.run(args.run))
        return 0
    if args.step_cost:
        print("\n".join(format_step_costs(study, measure_step_costs(study, args.step_cost))))
        return 0
    codes = {}
    if not args.report:
        codes = make_all(study, [sys.executable, *sys.argv, "--run"], args.processes)
    write(collect(study), args.output or study.output, new=True)
    return 1 if any(codes.values()) else 0


def write(results: dict[str, Any], folder: Path, new: bool) -> int:
    """Prints the tables, and writes them, the page and, if they are new, the results."""
    from ernie_vil2.io.files import atomic_files, write_json, write_text
    from experiments.ablation.tables import all_tables, as_markdown, as_text, write_study_page

    tables = all_tables(results)
    with atomic_files(folder) as aside:
        if new:
            write_json(aside / "results.json", results)
        write_text(aside / "tables.md", "\n\n".join(map(as_markdown, tables)) + "\n")
        write_study_page(aside / "study.html", results)
    print("\n\n".join(map(as_text, tables)))
    print(f"\nwritten: {folder / 'study.html'}, {folder / 'tables.md'}")
    return 0
