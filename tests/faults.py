"""Plant faults in the code one at a time, and report which of them the tests detect.

    python tests/faults.py                       # 40 faults drawn with a fixed seed, and six chosen by hand
    python tests/faults.py --only chosen         # only these six
    python tests/faults.py --root ../before      # the same faults, with the code and the tests of another checkout
    python tests/faults.py --list                # print the faults and plant none
    python tests/faults.py --results FILE        # write each result to the file, and resume from it after a stop

A fault is another comparison, sign, axis, constant or reduction in one of `FILES`. Each is planted in a copy of the
checkout. There the tests of its file run, then those of its package, then all others, and then those of hostile input,
up to the first failure. A fault with which the tests run longer than `--limit` seconds counts as detected. A fault that
changes nothing visible is listed in `EQUIVALENT` with the reason, and the next one of the same draw replaces it.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SEED, DRAWN = 20, 40
FILES = {
    "ernie_vil2/losses/*.py": "tests/losses",
    "ernie_vil2/parallel/gather.py": "tests/parallel/test_gather.py tests/parallel/test_gradients.py",
    "ernie_vil2/evaluation/ranking.py": "tests/evaluation/test_retrieval.py tests/evaluation/test_protocols.py",
    "ernie_vil2/evaluation/scorers/cxc.py": "tests/evaluation/test_cxc.py",
    "ernie_vil2/training/checkpoint.py": "tests/training/test_checkpoint.py tests/hostile/test_checkpoints.py",
    "ernie_vil2/training/update.py": "tests/training/test_nonfinite.py tests/training/test_tuning.py",
    "ernie_vil2/models/lora.py": "tests/models/test_lora.py tests/models/test_write_back.py",
    "ernie_vil2/data/order.py": "tests/data/test_order.py tests/data/test_stream.py",
    "ernie_vil2/apps/search/local_collection.py": "tests/apps/search tests/hostile/test_damaged_index.py",
}
"""Files in which faults are planted -> the tests that run first, separated by spaces."""
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
REDUCTIONS = {"sum": "mean", "mean": "sum", "max": "min", "min": "max", "all": "any", "any": "all", "argmax": "argmin"}


class Fault(NamedTuple):
    """A change of the code of a file between two byte offsets; `code` is its line."""

    file: str
    code: str
    start: int
    end: int
    original: str
    replacement: str

    @property
    def change(self) -> str:
        return f"{' '.join(self.original.split())} -> {' '.join(self.replacement.split())}"

    def __str__(self) -> str:
        return f"{self.file}: {self.change}, in {self.code}, at {self.start}"


def list_faults(file: str, text: str) -> Iterator[Fault]:
    """Yield all faults that can be planted in the text of a file."""
    tree = ast.parse(text)
    starts, lines = [0], text.splitlines(keepends=True)
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    encoded = text.encode()
    skipped: set[int] = set()
    for node in ast.walk(tree):
        skipped |= set(map(id, _find_text_nodes(node)))
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, ast.expr):
            continue
        for changed in _make_changes(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            yield Fault(
                file,
                lines[node.lineno - 1].strip(),
                start,
                end,
                encoded[start:end].decode(),
                f"({ast.unparse(changed)})",
            )


def _find_text_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of annotations and messages, in which a change is no fault."""
    if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
        yield from ast.walk(node.annotation)
    if isinstance(node, ast.FunctionDef) and node.returns:
        yield from ast.walk(node.returns)
    if isinstance(node, ast.JoinedStr | ast.Raise):
        yield from ast.walk(node)


def _make_changes(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1 if type(node.value) is int else 2 * node.value + 1)
    elif isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in REDUCTIONS:
            reduction = ast.Attribute(function.value, REDUCTIONS[function.attr], function.ctx)
            yield ast.Call(reduction, node.args, node.keywords)
        elif isinstance(function, ast.Name) and function.id in REDUCTIONS.keys() - {"mean", "sum", "argmax"}:
            yield ast.Call(ast.Name(REDUCTIONS[function.id], function.ctx), node.args, node.keywords)


CHOSEN = {
    "ernie_vil2/models/lora.py": [
        ("paddle.full([1], config.alpha / config.rank,", "paddle.full([1], config.alpha,"),
        ("self._padding, self._dilation, 1,", "self._padding, 1, 1,"),
    ],
    "ernie_vil2/training/update.py": [("self._average.update(step + 1)", "self._average.update(step)")],
    "ernie_vil2/evaluation/scorers/cxc.py": [
        (".scores >= MIN_POSITIVE_RATING[kind]", ".scores > MIN_POSITIVE_RATING[kind]")
    ],
    "ernie_vil2/losses/sigmoid.py": [("return F.relu(x) + paddle.log1p(paddle.exp(-x.abs()))", "return F.softplus(x)")],
    "ernie_vil2/parallel/gather.py": [("sum(counts[: dist.get_rank()])", "sum(counts[1 : dist.get_rank() + 1])")],
}
"""Faults that the tests once did not detect: file -> code and its replacement."""
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "ernie_vil2/parallel/gather.py",
        "gradient = paddle.concat([_pad(block, max_count, 0) for block in gradient.split(ctx.counts)])",
        "0 -> (1)",
    ): "the padding is cut off after the sum, whatever it holds",
    (
        "ernie_vil2/parallel/gather.py",
        "return _remove_padding(collectives.all_gather(_pad(tensor, max_count, 0)), counts, max_count)",
        "0 -> (1)",
    ): "the padding is cut off after the gather, whatever it holds",
    (
        "ernie_vil2/evaluation/scorers/cxc.py",
        "while line := file.readline(_MAX_LINE_LENGTH + 1):",
        "1 -> (2)",
    ): "a line that is refused is read with another character",
    (
        "ernie_vil2/training/update.py",
        "_C_ops.update_loss_scaling_(gradients, is_bad, one, zero, zero.clone(), 1, 1, 2.0, 0.5, True)",
        "0.5 -> (2.0)",
    ): "the scale that the kernel changes is thrown away",
    (
        "ernie_vil2/training/update.py",
        "_C_ops.update_loss_scaling_(gradients, is_bad, one, zero, zero.clone(), 1, 1, 2.0, 0.5, True)",
        "1 -> (2)",
    ): "the scale would change after another number of steps, but it is thrown away",
    (
        "ernie_vil2/losses/tiles.py",
        "EXCLUDED_LOGIT = -1e30",
        "1e30 -> (2e+30)",
    ): "any number far below all logits works",
    (
        "ernie_vil2/losses/tiles.py",
        "max_logit = max_along(logits, axis).clip(min=EXCLUDED_LOGIT / 2)",
        "EXCLUDED_LOGIT / 2 -> (EXCLUDED_LOGIT * 2)",
    ): "it matters only in a row of a tile without counted logits, whose share next to the positive is 0 anyway",
}
"""File, line of code and change of drawn faults that change nothing visible -> the reason."""


def choose_faults(root: Path) -> list[Fault]:
    """Return the faults of `CHOSEN` in a checkout.

    Raises:
        ValueError: the code of a fault is no longer there.
    """
    faults = []
    for file, changes in CHOSEN.items():
        text = (root / file).read_text(encoding="utf-8")
        for original, replacement in changes:
            if text.count(original) != 1:
                raise ValueError(f"{file} has {original!r} {text.count(original)} times, not once: adapt CHOSEN to it")
            start = len(text[: text.index(original)].encode())
            code = text[text.rindex("\n", 0, text.index(original)) :].strip().partition("\n")[0]
            faults.append(Fault(file, code, start, start + len(original.encode()), original, replacement))
    return faults


def draw_faults(root: Path) -> list[Fault]:
    """Return `DRAWN` of all faults, drawn with `SEED`; the next of the draw replaces an equivalent one."""
    faults: list[Fault] = []
    for pattern in FILES:
        paths = sorted(root.glob(pattern))
        if not paths:
            raise ValueError(f"no file is called {pattern}: adapt FILES to the code")
        for path in paths:
            faults += list_faults(str(path.relative_to(root)), path.read_text(encoding="utf-8"))
    sample = random.Random(SEED).sample(faults, 2 * DRAWN)  # noqa: S311  -- no secret
    return [fault for fault in sample if (fault.file, fault.code, fault.change) not in EQUIVALENT][:DRAWN]


def find_failing_test(root: Path, fault: Fault, limit: float) -> str | None:
    """Return the first test that fails with a fault in a copy of the checkout, or None."""
    path = root / fault.file
    text = path.read_bytes()
    path.write_bytes(text[: fault.start] + fault.replacement.encode() + text[fault.end :])
    first_tests = next(tests.split() for pattern, tests in FILES.items() if Path(fault.file).match(pattern))
    environment = os.environ | {"PYTHONPATH": str(root)}
    environment.pop("ERNIE_VIL2_FIXTURES", None)  # the tests of the repository alone must detect a fault
    try:
        path_of_tests = Path(first_tests[0])
        folder = str(path_of_tests if path_of_tests.suffix == "" else path_of_tests.parent)
        # A wheel is built from a Git repository, which the copy is not.
        remaining_tests = ["tests", f"--ignore={folder}", "--ignore=tests/test_wheel.py"]
        for tests in (first_tests, [folder], remaining_tests, ["tests/hostile"]):
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "2", "--dist", "worksteal", *tests]
            try:
                run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=limit)  # noqa: S603  -- a command of this script
            except subprocess.TimeoutExpired:
                return "the tests do not end"
            if run.returncode not in (0, 5):  # 5: no test was chosen
                return next((line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "?")
        return None
    finally:
        path.write_bytes(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout; default: this one")
    parser.add_argument("--only", choices=("drawn", "chosen"), help="default: both")
    parser.add_argument("--list", action="store_true", help="print the faults and plant none")
    parser.add_argument("--results", type=Path, help="JSON lines of results; faults in it are not planted again")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that the tests may take; default: 3,600")
    args = parser.parse_args()
    faults: list[Fault] = []
    if args.only != "drawn":
        faults += choose_faults(args.root)
    if args.only != "chosen":
        faults += draw_faults(args.root)
    if args.list:
        print(*faults, sep="\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "checkout")
        tracked = subprocess.run(["git", "-C", args.root, "ls-files", "-z"], capture_output=True, check=True).stdout  # noqa: S603, S607  -- a command of this script
        for name in filter(None, tracked.decode().split("\0")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(args.root / name, copy / name, follow_symlinks=False)
        results: dict[str, str | None] = {}  # fault -> the test that failed
        if args.results and args.results.exists():
            results = dict(map(json.loads, args.results.read_text(encoding="utf-8").splitlines()))
        for number, fault in enumerate(faults, 1):
            if str(fault) not in results:
                results[str(fault)] = find_failing_test(copy, fault, args.limit)
                if args.results:
                    with args.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps([str(fault), results[str(fault)]]) + "\n")
            test = results[str(fault)]
            outcome = "found   " if test else "SURVIVED"
            print(f"{number:>2} of {len(faults)}  {outcome}  {fault}\n      {test or ''}", flush=True)
    num_found = sum(results[str(fault)] is not None for fault in faults)
    print(f"{num_found} of {len(faults)} found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
