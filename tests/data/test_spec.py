"""The data specification: settings of a configuration or a command line reach the readers."""

import argparse
from dataclasses import fields

import pytest

from ernie_vil2.cli import arguments
from ernie_vil2.config import load_config
from ernie_vil2.config.sections import LocationConfig
from ernie_vil2.data.readers import LAYOUTS, open_benchmark, open_sources
from ernie_vil2.data.spec import DataSpec
from tests.support.shapes import write_tar

LOCATION = {
    "data": ["a.csv"], "layout": "table", "split": "dev", "images": "photos", "columns": {"image": "图"},
    "encoding": "gb18030", "text_id": "number", "caption_lines": True,
}  # fmt: skip


def test_every_setting_of_a_location_reaches_the_spec():
    assert set(LOCATION) == set(LocationConfig.model_fields)
    config = load_config(None, [f"Data.train=[{LOCATION}]", f"Data.test=[{LOCATION}]"])
    for spec in (
        DataSpec.from_source(config, config.Data.sources[0]),
        DataSpec.from_scored(config, config.Data.test_config, "test"),
    ):
        assert {name: getattr(spec, name) for name in LOCATION if name != "data"} | {"data": spec.paths} == LOCATION


def test_every_field_with_a_description_is_a_command_option(tmp_path):
    values = {"layout": "table", "split": "dev", "images": str(tmp_path), "columns": "image=图", "encoding": "gb18030",
              "text_id": "number"}  # fmt: skip
    described = {field.name for field in fields(DataSpec) if field.metadata}
    assert described == {*values, "caption_lines"}
    parser = argparse.ArgumentParser()
    arguments.add_data_options(parser)
    words = []
    for name, value in values.items():
        words += [f"--{name.replace('_', '-')}", value]

    spec = arguments.make_data_spec(parser.parse_args(["--data", "a.csv", "--caption-lines", *words]), languages=["zh"])

    expected = values | {"columns": {"image": "图"}, "caption_lines": True, "languages": ["zh"]}
    assert {name: getattr(spec, name) for name in expected} == expected and spec.paths == ["a.csv"]


def test_spec_opens_the_same_data_as_paths_and_options(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("0.png", b"x"), ("0.json", b'{"caption": "a cat", "id": "7"}')])
    spec = DataSpec([str(path)], text_id="id")
    assert open_sources(spec)[0].text_name == open_sources([path], text_id="id")[0].text_name == "7"
    assert open_benchmark(spec).texts[0].id == open_benchmark(path, text_id="id").texts[0].id == "7"
    with pytest.raises(TypeError, match="text_ids"):
        open_sources([path], text_ids="id")


def test_every_layout_is_registered_by_its_name():
    assert [layout.name for layout in LAYOUTS.load_all()] == list(LAYOUTS)
