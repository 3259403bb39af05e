"""Files of runs and of teachers with lines that cannot be, and parts of them missing."""

import json

import numpy as np
import pytest

from ernie_vil2.config import Config
from ernie_vil2.tasks.teacher import Teacher
from ernie_vil2.training.run_log import RunLog, read_log


def line(kind="train", step=1, **values):
    return json.dumps({"kind": kind, "step": step, "seconds": 0.5, "loss": 1.0, **values}).encode() + b"\n"


BAD_LINES = [
    b"\xff\xfe\n",
    b"[]\n",
    b'{"kind": {}, "step": 1, "seconds": 1}\n',
    line(loss="low"),
    line("evaluation", evaluator="mine", best_by=None, metrics=[1.0]),
    line("evaluation", evaluator="mine", best_by=None, metrics={"accuracy": 1.0}, shown="accuracy"),
    line("note"),
    b'{"kind": "train", "step": ' + b"1" * 5000 + b', "seconds": 1}\n',
]


@pytest.mark.parametrize("bad", BAD_LINES, ids=range(len(BAD_LINES)))
def test_bad_line_of_a_log_is_set_aside(tmp_path, bad):
    good = [line(step=step, samples_per_second=1.0, loader_wait=0) for step in (1, 2)]
    (tmp_path / "log.jsonl").write_bytes(good[0] + bad + good[1])
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 2]
    RunLog(tmp_path, Config(), first_step=2).close()
    assert (tmp_path / "damaged_log.jsonl").read_bytes() == bad


@pytest.mark.parametrize(("name", "content"), [
    ("image_embeddings.npy", b"x"),
    ("texts.jsonl", b"nothing\n"),
    ("texts.jsonl", None),
])  # fmt: skip
def test_damaged_folder_of_a_teacher_is_named(tmp_path, name, content):
    for kind in ("image", "text"):
        np.save(tmp_path / f"{kind}_embeddings.npy", np.ones([1, 4], np.float32))
        (tmp_path / f"{kind}s.jsonl").write_text(json.dumps({f"{kind}_id": "a", "text": "a"}) + "\n")
    assert Teacher(str(tmp_path)).row("a", "a").shape == (8,)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, OSError), match=name):
        Teacher(str(tmp_path))
