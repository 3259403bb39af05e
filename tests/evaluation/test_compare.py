"""A comparison of small models has the figures of their evaluations, and explains what it refuses."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ernie_vil2
from ernie_vil2 import cli as commands
from ernie_vil2.data.readers import open_benchmarks, open_sources
from ernie_vil2.data.samples import Reason
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.evaluation import compare as module
from ernie_vil2.evaluation.compare import (
    ComparisonResult,
    Cost,
    EmbeddingFolder,
    NearestPixels,
    compare_models,
    name_models,
)
from ernie_vil2.evaluation.compare_page import make_comparison_page
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.outcomes import Comparison, Outcomes
from ernie_vil2.evaluation.pixel_baseline import compute_pixel_baseline
from ernie_vil2.evaluation.protocol import evaluate, find_protocol
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from ernie_vil2.evaluation.scorers.zero_shot import ZeroShot
from ernie_vil2.pages import Card
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import succeed
from tests.support.embedding_servers import serve_model
from tests.support.entailment_data import write_entailment_folder
from tests.support.published_folders import write_coco_cn
from tests.support.shapes import COLOURS, SHAPES, draw, encode_png

TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", *COLOURS, *SHAPES]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return two models: an untrained one, and the same with other weights of its patches."""
    folder = tmp_path_factory.mktemp("models")
    first, second = (write_untrained_checkpoint(folder / name, TOKENS) for name in ("first", "second"))
    weights = load_file(second / "model.safetensors")
    patches = next(name for name in weights if "patch" in name and weights[name].ndim > 1)
    weights[patches] = np.random.default_rng(1).normal(size=weights[patches].shape).astype(np.float32)
    save_file(weights, second / "model.safetensors")
    return {"first": str(first), "second": str(second)}


@pytest.fixture(scope="module")
def data(shapes):
    return DataSpec([str(shapes["val"])], languages=["en"], text_id="id")


@pytest.fixture(scope="module")
def result(models, data):
    return compare_models(models, data, device="cpu", resamples=200)


def test_figures_equal_those_of_evaluations(models, data, result):
    (benchmark,) = open_benchmarks(data).values()
    for name, source in models.items():
        expected = evaluate(ernie_vil2.load_model(source, device="cpu"), benchmark, find_protocol("pairs"))
        for way, recalls in expected.results.items():
            for figure, value in recalls.recall.items():
                assert result.comparison.estimates["en", name, f"{way}/{figure}"].mean == pytest.approx(value)


def test_python_function_returns_columns(models, data, result):
    record = ernie_vil2.compare(models, data, device="cpu", resamples=200)
    assert record["figures"]["value"].tolist() == result.record()["figures"]["value"].tolist()
    assert set(record) == {"figures", "differences", "queries", "costs", "verdicts", "notes"}
    assert record["costs"]["model"] == ["first", "second"] and record["costs"]["width"].tolist() == [32, 32]
    assert (record["costs"]["milliseconds_query"] > 0).all() and (record["costs"]["megabytes"] > 0).all()
    assert len(record["queries"]["query"]) == 32


def write_embeddings(encoded, folder, scale=1.0, name_text_by="id"):
    """Write embeddings as another library does: in another order, not normalised, with lists of names."""
    folder.mkdir()
    image_names = [image.id for image in encoded.benchmark.images]
    text_names = [getattr(text, name_text_by) for text in encoded.benchmark.texts]
    for kind, rows, names in (("image", encoded.image_embeddings, image_names),
                              ("text", encoded.text_embeddings, text_names)):  # fmt: skip
        order = np.random.default_rng(0).permutation(len(rows))
        np.save(folder / f"{kind}_embeddings.npy", (scale * rows[order]).astype(np.float32))
        (folder / f"{kind}s.txt").write_text("".join(f"{names[row]}\n" for row in order), encoding="utf-8")
    return folder


def test_embeddings_are_matched_by_id_or_text(models, data, tmp_path):
    (benchmark,) = open_benchmarks(data).values()
    encoded = encode_benchmark(ernie_vil2.load_model(models["first"], device="cpu"), benchmark)
    by_id = write_embeddings(encoded, tmp_path / "ids", scale=3.0)
    by_text = write_embeddings(encoded, tmp_path / "texts", name_text_by="text")
    # Zeros appended to all vectors change no cosine.
    padded = [np.pad(side, [(0, 0), (0, 8)]) for side in (encoded.image_embeddings, encoded.text_embeddings)]
    wide = write_embeddings(type(encoded)(benchmark, *padded, encoded.bad_samples), tmp_path / "wide")
    folders = {"ids": EmbeddingFolder(by_id), "texts": EmbeddingFolder(by_text), "wide": EmbeddingFolder(wide)}
    result = compare_models({"first": models["first"], **folders}, data, device="cpu", resamples=50)
    assert [verdict.difference.mean for verdict in result.comparison.verdicts] == [0, 0, 0]
    # 16 images of 32 float32 numbers.
    assert result.costs["ids"] == Cost(width=32, index_megabytes=16 * 32 * 4 / 1e6)
    assert result.costs["wide"].width == 40


def test_model_on_a_server_has_the_figures_of_the_model_here(models, data, tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    with serve_model(ernie_vil2.load_model(models["second"], device="cpu"), "large") as address:
        served = {"first": models["first"], "large": address}
        result = compare_models(served, data, device="cpu", resamples=50)
        arguments = ["--data", *data.paths, "--language", "en", "--text-id", "id", "--resamples", "50"]
        succeed("compare", models["first"], "--embeddings", address, *arguments, "--output", tmp_path / "comparison")
    local = {"first": models["first"], "large": models["second"]}
    expected = compare_models(local, data, device="cpu", resamples=50).comparison.record()
    assert result.comparison.record()["figures"]["value"].tolist() == expected["figures"]["value"].tolist()
    assert result.costs["large"] == Cost(width=32, index_megabytes=16 * 32 * 4 / 1e6)
    [record] = (tmp_path / "comparison").glob("*.json")
    figures = json.loads(record.read_text())
    assert figures["figures"]["value"] == pytest.approx(expected["figures"]["value"].tolist())
    with pytest.raises(FileNotFoundError, match="large"):
        ernie_vil2.load_model(address)


def test_embeddings_of_other_rows_are_refused(models, data, shapes, tmp_path):
    (benchmark,) = open_benchmarks([shapes["train"]], languages=["en"], text_id="id").values()
    model = ernie_vil2.load_model(models["first"], device="cpu")
    encoded = encode_benchmark(model, benchmark.select(images=range(4)))
    folder = write_embeddings(encoded, tmp_path / "others")
    with pytest.raises(ValueError, match="others"):
        compare_models({"first": models["first"], "x": EmbeddingFolder(folder)}, data, device="cpu")
    (folder / "images.txt").unlink()
    with pytest.raises(FileNotFoundError, match="images.jsonl"):
        compare_models({"first": models["first"], "x": EmbeddingFolder(folder)}, data, device="cpu")


def test_truncated_texts_are_counted_and_reported(models, tmp_path):
    (tmp_path / "long.csv").write_text(f"image,text\n1.png,a red disc\n2.png,{'a blue bar ' * 9}\n", encoding="utf-8")
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(encode_png(draw((200, 30, 30), "disc", np.random.default_rng(int(name[0])))))
    result = compare_models(models, DataSpec([str(tmp_path / "long.csv")]), device="cpu", resamples=50)
    assert result.costs["first"].cut_texts == 1
    assert "first sees 16 tokens of a text: 1 of 2 texts are longer and are cut." in result.notes


def test_image_that_a_model_cannot_use_is_named(models, data):
    class Blind(ernie_vil2.ErnieViL2):
        def preprocess(self, image, name="image"):
            pixels = super().preprocess(image, name)
            if self.blind == image:
                raise ernie_vil2.BadSample(Reason.BROKEN_IMAGE, name)
            return pixels

    loaded = {name: ernie_vil2.load_model(source, device="cpu") for name, source in models.items()}
    loaded["second"].__class__ = Blind
    (benchmark,) = open_benchmarks(data).values()
    loaded["second"].blind = benchmark.images[3].read()
    with pytest.raises(ValueError, match=f"first.* {benchmark.images[3].id}"):
        compare_models(loaded, data)


def test_impossible_comparisons_are_explained(models, data, tmp_path):
    with pytest.raises(ValueError, match="two models"):
        compare_models({"first": models["first"]}, data)
    folder = write_entailment_folder(tmp_path / "snli-ve")
    with pytest.raises(ValueError, match="no statements"):
        compare_models({name: EmbeddingFolder(tmp_path) for name in "ab"}, DataSpec([str(folder)], split="test"))
    assert name_models(["runs/a", "other/a", "b"]) == {"runs/a": "runs/a", "other/a": "other/a", "b": "b"}
    assert list(name_models(["runs/\udcc4\udce3", "b"])) == ["你", "b"]  # a folder named in GBK
    with pytest.raises(ValueError, match="x/a is named twice"):
        name_models(["x/a", "x/a"])


def test_unknown_option_is_refused_whatever_stands_for_the_models(data, tmp_path):
    with pytest.raises(TypeError, match="resample"):
        ernie_vil2.compare({name: EmbeddingFolder(tmp_path) for name in "ab"}, data, resample=10)


def test_pixels_are_compared_by_one_protocol(models, data, shapes):
    sources = {"pixels": NearestPixels([str(shapes["train"])]), "first": models["first"]}
    result = compare_models(sources, data, device="cpu", resamples=50)
    assert result.sources["pixels"] == str(shapes["train"])
    assert result.comparison.differences["en", "first", "image_to_text/mR"].count == 16
    with pytest.raises(ValueError, match="pixels: .* scored otherwise"):
        compare_models(sources, data, scorer=ZeroShot(label="kind"), device="cpu", resamples=50)
    with pytest.raises(ValueError, match="pixels: .* first-text"):
        compare_models(sources, data, scorer=Retrieval(["all-conventions"]), device="cpu", resamples=50)


def test_pixels_come_from_the_train_split(models, tmp_path):
    write_coco_cn(tmp_path)
    home = str(tmp_path / "coco-cn-version1805v1.1")
    train, test = (open_sources([home], split=split) for split in ("train", "test"))
    ranks = compute_pixel_baseline(train, test).ranks
    sources = {"first": models["first"], "pixels": NearestPixels([home])}
    result = compare_models(sources, home, device="cpu", resamples=50)
    assert result.comparison.find_ranks("pixels", "")[: len(ranks)].tolist() == ranks.tolist()
    # The protocol names another split to score.
    result = compare_models(sources, home, scorer=Retrieval(["aic-icc-val-10k"]), device="cpu", resamples=50)
    assert result.comparison.outcomes["pixels"][""].query_ids[0] == "image_to_text COCO_val2014_000000001000"
    scorer = Retrieval(pixel_baseline=[home])
    assert scorer._compute_baseline(scorer.open(DataSpec([home])).data).ranks.tolist() == ranks.tolist()


@pytest.mark.parametrize(("cost", "cell"), [(0.0123, "0.012"), (9.96, "10"), (99.6, "100"), (1234.5, "1,234")])
def test_costs_have_two_digits_and_no_exponent(cost, cell):
    comparison = ComparisonResult(None, {"model": Cost(megabytes=cost)}, [], [])
    ((_, cells),) = comparison.make_cost_table().rows
    assert cells[2] == cell


def test_names_of_images_are_no_directions():
    ids = [f"road_to_town_{number}.jpg" for number in range(4)]

    def make_cards(rows):
        return [Card(ids[row], []) for row in rows]

    outcomes = {}
    for model, rank in (("first", 2), ("second", 1)):
        figures = {"acc1": np.full(4, 100.0 * (rank == 1))}
        outcomes[model] = {"": Outcomes(ids, figures, "acc1", np.arange(4), np.full(4, rank), make_cards=make_cards)}
    result = ComparisonResult(Comparison(outcomes, resamples=10), dict.fromkeys(outcomes, Cost()), [], [])
    (query,) = make_comparison_page(result, num_queries=1).data["queries"]
    assert query["kind"] == "won" and query["direction"] == ""


@pytest.mark.thorough
def test_classes_and_statements_use_their_scorers(models, tmp_path):
    for number, name in enumerate(("disc", "bar")):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for copy in range(3):
            drawing = draw(COLOURS["red"][0], name, np.random.default_rng(10 * number + copy))
            (tmp_path / "classes" / name / f"{copy}.png").write_bytes(encode_png(drawing))
    classes = DataSpec([str(tmp_path / "classes")])
    comparison = compare_models(models, classes, device="cpu", resamples=50).comparison
    assert set(comparison.figures) == {"acc1", "mean_per_class_recall"}
    assert comparison.estimates[comparison.results[0], "first", "acc1"].count == 6
    first, second = (write_untrained_checkpoint(tmp_path / name, TOKENS, "entailment") for name in ("c1", "c2"))
    folder = write_entailment_folder(tmp_path / "snli-ve")
    statements = DataSpec([str(folder)], split="test")
    comparison = compare_models({"c1": first, "c2": second}, statements, device="cpu", resamples=50).comparison
    assert comparison.verdicts[0].figure == "accuracy" and comparison.verdicts[0].difference.mean == 0


@pytest.mark.thorough
def test_command_writes_table_record_ranks_and_page(models, shapes, tmp_path, capsys):
    arguments = [f"one={models['first']}", models["second"], "--data", shapes["val"], "--text-id", "id", "--language",
                 "en", "--pixel-baseline", shapes["train"], "--output", tmp_path, "--resamples", 50, "--name", "x",
                 "--device", "cpu"]  # fmt: skip
    assert commands.run("compare", list(map(str, arguments))) == 0
    assert "nearest train image by pixels" in capsys.readouterr().out
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["models"]["one"] == models["first"] and len(record["verdicts"]) == 2
    assert None in record["differences"]["corrected_p"]
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0] == f"result,query,text,rank/one,rank/second,rank/{module.PIXEL_BASELINE_NAME}" and len(lines) == 33
    page = (tmp_path / "x.html").read_text()
    # It begins with the largest difference.
    differences = re.findall(r" ([+-][\d.]+) \(", " ".join(record["verdicts"]))
    largest = max(differences, key=lambda difference: abs(float(difference)))
    for name in ("lead", "pinned"):
        assert re.search(rf'class="{name}">[^<]* {re.escape(largest)} ', page)
    assert "Who finds what" in page and "data:image/jpeg" in page and "http" not in page.replace("http-equiv", "")
