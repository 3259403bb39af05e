"""The report for people: `report.md`, and the archive to send back."""

import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.expectations import list_expected_steps
from benchmarks.gpu_day.comparison import TOLERANCE, Row, compare

# Step -> title, and the figures that its table has as columns; without columns, each figure is a row.
TITLES: dict[str, tuple[str, Sequence[str]]] = {
    "machine": ("Machine", ()),
    "correctness": ("Correctness", ("passed", "failed", "skipped")),
    "ceilings": ("Ceilings of the machine", ()),
    "throughput": (
        "Throughput",
        (
            "rows", "num_steps", "step_seconds", "step_seconds_p90", "samples_per_second", "share_of_peak",
            "share_of_gemm", "peak_gib", "planned_gib", "launches", "idle_share", "loader_wait",
        ),
    ),
    "scaling": (
        "Scaling",
        ("ranks", "step_seconds", "step_seconds_p90", "samples_per_second", "idle_share", "most_processes_on_a_gpu"),
    ),
    "failures": (
        "Failures",
        (
            "ranks", "kill_code", "kill_seconds", "resume_seconds", "goes_on", "pause_code", "seconds_until_end",
            "stop_code", "stop_seconds", "saved_when_stopped",
        ),
    ),
    "accuracy": ("Accuracy of the demo", ("last_loss", "mean_recall", "samples_per_second")),
}  # fmt: skip
MAX_TEXT = 200  # letters of a figure that is a text; report.json has all of it


def write_report(output: Path, report: Mapping[str, Any], is_finished: bool) -> list[Row]:
    """Write `report.md` and return the rows of its last table."""
    from ernie_vil2.io.files import write_text

    rows = compare(report)
    write_text(output / "report.md", "\n".join(describe(report, rows, is_finished)) + "\n")
    return rows


def describe(report: Mapping[str, Any], rows: Sequence[Row], is_finished: bool) -> list[str]:
    """Return the lines of `report.md`."""
    lines = ["# A day on GPUs", ""]
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in report.items() if name != "measurements"]
    if not is_finished:
        lines += ["", "The day is not over, or was ended before its end."]
    for step, (title, columns) in TITLES.items():
        records = [record for record in report["measurements"] if record["step"] == step]
        if records:
            lines += ["", f"## {title}", "", *describe_records(records, columns)]
    expectations = describe_expectations(report["measurements"])
    if expectations:
        lines += ["", "## Calculated for faster code", "", *expectations]
    lines += ["", "## What failed or was left out", "", *describe_problems(report["measurements"])]
    lines += ["", "## Expected and measured", "", *describe_rows(rows)]
    lines += ["", f"## What differs by more than {TOLERANCE:.0%}", "", *describe_differences(rows)]
    return lines


def describe_records(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Return the table of a step."""
    if columns:
        header = ["measurement", "result", "seconds", *(column.replace("_", " ") for column in columns)]
        cells = []
        for record in records:
            figures = [format_figure(record["figures"].get(column)) for column in columns]
            cells.append([record["name"], record["status"], format_figure(record["seconds"]), *figures])
        return make_table(header, cells)

    cells = []
    for record in records:
        cells.append([record["name"], "result", f"{record['status']}, {record['seconds']} s"])
        cells += [["", name, format_figure(value)] for name, value in record["figures"].items()]
    return make_table(["measurement", "figure", "value"], cells)


def describe_expectations(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the table of what is expected of the step of 1,024 rows, on this device, by change of the code."""
    sheet = ""
    for record in records:
        sheet = record["figures"].get("data_sheet") or sheet
    cells = []
    for step in list_expected_steps(sheet):
        figures = (step.seconds, step.samples_per_second, step.share_of_peak)
        cells.append([step.change, *map(format_figure, figures)])
    if not cells:
        return []
    return make_table(["with the changes up to", "step, s", "samples a second", "share of peak"], cells)


def describe_problems(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the measurements that are not "ok", the tests that failed, and the reasons."""
    lines = []
    for record in records:
        name = f"{record['step']}, {record['name']}"
        if record["status"] != "ok":
            limit = f" after {record['seconds']} of {record['limit_seconds']} s" if record["seconds"] else ""
            lines.append(f"- **{name}** {record['status']}{limit}")
            lines += [f"      {line}" for line in record["reason"].splitlines()]
        for test in record["figures"].get("tests", []):
            if test["outcome"] == "failed":
                lines += [f"- **{test['test']}** failed", f"      {test['message']}"]
        for figure, value in record["figures"].items():
            if figure.endswith("_error"):
                lines.append(f"- **{name}**, {figure.removesuffix('_error')}: {value}")
    return lines or ["Nothing."]


def describe_rows(rows: Sequence[Row]) -> list[str]:
    """Return the table of expected and measured figures."""
    cells = []
    for row in rows:
        expected = f"{'at most ' if row.rule == 'at most' else ''}{format_figure(row.expected)}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        cells.append([row.name, expected, format_figure(row.measured), ratio, row.source])
    return make_table(["figure", "expected", "measured", "ratio", "expectation from"], cells)


def describe_differences(rows: Sequence[Row]) -> list[str]:
    """Return a line for each figure that is not as expected."""
    lines = []
    for row in rows:
        if row.differs:
            ratio = "" if row.ratio is None else f" ({row.ratio:.2f} of it)"
            expected, measured = format_figure(row.expected), format_figure(row.measured)
            lines.append(f"- {row.name}: {measured} instead of {expected}{ratio}")
    return lines or ["Nothing."]


def make_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in cells:
        texts = [cell.replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append(f"| {' | '.join(texts)} |")
    return lines


def format_figure(value: Any) -> str:
    """Return a figure with four significant digits; other values as text, cut if they are long."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    text = str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def pack(output: Path) -> Path:
    """Write the archive to send back: everything but runs and data."""
    archive = output.with_name(f"{output.name}.tar.gz")
    with tarfile.open(archive, "w:gz") as file:
        for path in sorted(output.iterdir()):
            if path.name != "work":
                file.add(path, f"{output.name}/{path.name}")
    return archive
