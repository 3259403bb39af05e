"""What a run leaves to read: resolved configuration, versions, JSONL log, VisualDL curves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ernie_vil2.config import Config, dump_config
from ernie_vil2.environment import environment
from ernie_vil2.files import remove_partial, system_errors_named, write_text


class RunLog:
    """Writes a run's records to `log.jsonl` and VisualDL.

    Args:
        run: the run folder.
        config: the resolved configuration, written to `config.yaml`.
        first_step: steps already done; records of later steps, left by an interrupted run, are dropped.
        evaluated: the last step whose evaluation is done; records of later evaluations are dropped.
    """

    def __init__(self, run: Path, config: Config, first_step: int = 0, evaluated: int = 0):
        from visualdl import LogWriter

        run.mkdir(parents=True, exist_ok=True)
        remove_partial(run)
        write_text(run / "config.yaml", dump_config(config))
        write_text(run / "environment.json", json.dumps(environment(), indent=1))
        path = run / "log.jsonl"
        done = {"train": first_step, "evaluation": evaluated}
        kept = [record for record in read_log(path) if record["step"] <= done[record["kind"]]]
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
        self._file = open(path, "a", encoding="utf-8")
        self._curves = LogWriter(logdir=str(run / "visualdl"))
        self._start = time.monotonic() - (kept[-1]["seconds"] if kept else 0)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Appends one record; numbers, nested ones too, become VisualDL curves."""
        seconds = round(time.monotonic() - self._start, 2)
        record = json.dumps({"kind": kind, "step": step, "seconds": seconds, **values}, ensure_ascii=False)
        with system_errors_named(self._file.name):
            self._file.write(record + "\n")
            self._file.flush()
        for name, value in _numbers(values, f"{kind}/{values['language']}" if "language" in values else kind):
            self._curves.add_scalar(tag=name, step=step, value=value)

    def close(self) -> None:
        self._file.close()
        self._curves.close()


def _numbers(values: dict[str, Any], prefix: str):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            yield f"{prefix}/{name}", value


def read_log(path: Path) -> list[dict[str, Any]]:
    """Records of a `log.jsonl`, oldest first; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            records.append(json.loads(line))
    return records
