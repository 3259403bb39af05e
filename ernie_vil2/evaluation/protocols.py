"""The named protocols, in words and as `Protocol`s (docs/protocols.md has them all), and what is published on each.

Published for ERNIE-ViL 2.0, and for fine-tuning on Chinese benchmarks, printed next to a result: Tables 1 to 4 and 6 to
8 of the paper (arXiv 2209.15270), with those it compares with where these are few; what the release says of its files;
what PaddleNLP's fine-tuning of the released base model reached, and Chinese-CLIP's of a model of its size. Figures as
they are in the named source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

from ernie_vil2.evaluation.protocol import AGAINST, ANY_OF, MEASURES, SCORE, SCORED_AS_USUAL, Protocol
from ernie_vil2.registry import Registry, unknown

_OF_RETRIEVAL = (
    Protocol(
        name="pairs",
        definition=(
            "All images and all texts of the benchmark are the galleries, each once, distinguished by id. An "
            "answer is right when some pair holds both. A row without a pair is in the gallery, but no query. "
            f"{SCORED_AS_USUAL}"
        ),
    ),
    Protocol(
        name="coco-cn-test",
        definition=(
            "The test split of COCO-CN: 1,000 images and their 1,053 human-written sentences, so that some images "
            "have two. Translated sentences and tags take no part. An answer is right when it is the image's own "
            f"sentence. {SCORED_AS_USUAL}"
        ),
        split="test",
        images=1_000,
        texts=1_053,
    ),
    Protocol(
        name="aic-icc-val-10k",
        definition=(
            "The first 10,000 images of AIC-ICC's validation split in the order of its JSON file, with the five "
            f"sentences of each: 10,000 images and 50,000 texts. {SCORED_AS_USUAL}"
        ),
        split="val",
        images=10_000,
        texts=50_000,
        first_images=10_000,
        texts_per_image=5,
    ),
    Protocol(
        name="flickr30k-test",
        definition=(
            "The test split of Flickr30K by Karpathy: 1,000 images with five sentences each, 5,000 texts. "
            f"{SCORED_AS_USUAL}"
        ),
        split="test",
        images=1_000,
        texts=5_000,
        texts_per_image=5,
    ),
    Protocol(
        name="mscoco-5k",
        definition=(
            "The test split of MSCOCO by Karpathy: 5,000 images with the first five sentences of each in the order "
            "of the file, 25,000 texts; the few sentences beyond the fifth of an image take no part. "
            f"{SCORED_AS_USUAL}"
        ),
        split="test",
        images=5_000,
        texts=25_000,
        texts_per_image=5,
    ),
    Protocol(
        name="mscoco-1k",
        definition=(
            "The images and texts of mscoco-5k, cut in the order of the file into five folds of 1,000 images with "
            "their 5,000 texts. Each fold is scored on its own, against its own galleries alone, and every figure "
            f"is the mean over the folds. {SCORED_AS_USUAL}"
        ),
        split="test",
        images=5_000,
        texts=25_000,
        texts_per_image=5,
        fold=1_000,
    ),
    Protocol(
        name="flickr30k-cn-test",
        definition=(
            "The test split of Flickr30k-CN: 1,000 images with five Chinese sentences each, 5,000 texts. "
            f"{SCORED_AS_USUAL}"
        ),
        split="test",
        images=1_000,
        texts=5_000,
        texts_per_image=5,
    ),
    Protocol(
        name="flickr30k-cna-test",
        definition=(
            "The test split of Flickr30K-CNA, whose sentences were translated by hand once more: 1,000 images with "
            f"five Chinese sentences each, 5,000 texts. {SCORED_AS_USUAL}"
        ),
        split="test",
        images=1_000,
        texts=5_000,
        texts_per_image=5,
    ),
    Protocol(
        name="coco-cn-translated",
        definition=(
            "COCO-CN with translated sentences, as FG-CLIP 2 scores it: 1,000 images with the first five of their "
            "sentences that were translated from English (#zhm#), 5,000 texts. The human-written sentences of "
            f"coco-cn-test take no part; its figures are not to be compared with these. {SCORED_AS_USUAL}"
        ),
        images=1_000,
        texts=5_000,
        texts_per_image=5,
    ),
    *(
        Protocol(
            name=name,
            definition=(
                f"{title}. Each line of the list is an image with its long Chinese caption. All images and all "
                "captions are the galleries, each once; equal captions of two images are two texts. The captions are "
                f"longer than many models see; tools/compare.py reports how many a model cuts. {SCORED_AS_USUAL}"
            ),
            images=count,
            texts=count,
        )
        for name, title, count in (
            ("lit-cn", "LIT-CN, 33,010 images with captions that a language model wrote", 33_010),
            ("dci-cn", "DCI-CN, Densely Captioned Images with translated captions", None),
            ("docci-cn", "DOCCI-CN, DOCCI with translated captions", None),
        )
    ),
    Protocol(
        name="xm3600",
        definition=(
            "Crossmodal-3600 in one language: 3,600 images with all of their captions in it, two or more each. Each "
            "language is a benchmark of its own; where several are scored, their figures are averaged. "
            f"{SCORED_AS_USUAL}"
        ),
        images=3_600,
    ),
    Protocol(
        name="xm3600-first",
        definition=(
            "Crossmodal-3600 in one language with the first caption of each image alone, as CLIP_benchmark reads it: "
            f"3,600 images and as many texts. {SCORED_AS_USUAL}"
        ),
        images=3_600,
        texts=3_600,
        texts_per_image=1,
    ),
    Protocol(
        name="muge-val",
        definition=(
            "The validation split of MUGE's retrieval task: every query text asks for its product images among all "
            f"images of the split; {SCORE} An image that no query asks for is in the gallery all the same, and a "
            f"text without images is not a query. {ANY_OF} {AGAINST} R@K is the share of queries of rank at most K, "
            "and mR the mean of R@1, R@5 and R@10. Images ask for nothing: there is no other direction."
        ),
        split="val",
        directions=("text_to_image",),
    ),
    Protocol(
        name="first-text",
        definition=(
            "Each image keeps one text alone, its first in the order of the files. A text that is the first of no "
            "image leaves the gallery; all images stay. An answer is right when the text is the image's first one. "
            f"{SCORED_AS_USUAL}"
        ),
        texts_per_image=1,
    ),
    Protocol(
        name="official-rows",
        definition=(
            "What the evaluator of the official ERNIE-ViL 2.0 release computes, for any number of rows. Every pair "
            "of image and text, in the order of the files, is a row with an image and a text of its own: an image "
            "with two texts is in the gallery twice. The label is the row number: only the row's own text is right "
            "for its image, and its own image for its text, even where another row holds the same. Every row's "
            f"image asks among all rows' texts, every row's text among all rows' images; {SCORE} Ties count for "
            "the model: the rank is 1 + the number of rows that score more than the right one, so that equal "
            f"embeddings everywhere give R@1 = 100. {MEASURES} MRR is the mean of 1 / rank."
        ),
        row_labels=True,
        ties="optimistic",
    ),
)
PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    {
        **{protocol.name: protocol for protocol in _OF_RETRIEVAL},
        "cxc": "ernie_vil2.evaluation.scorers.cxc:CXC",
        "cxc-val": "ernie_vil2.evaluation.scorers.cxc:CXC_VAL",
        "cxc-directed": "ernie_vil2.evaluation.scorers.cxc:CXC_DIRECTED",
        "cxc-every-caption": "ernie_vil2.evaluation.scorers.cxc:CXC_EVERY_CAPTION",
        "cxc-without-co-captions": "ernie_vil2.evaluation.scorers.cxc:CXC_WITHOUT_CO_CAPTIONS",
        "cxc-correlation": "ernie_vil2.evaluation.scorers.cxc:CXC_CORRELATION",
    },
    [field.name for field in fields(Protocol)],
)
"""By name; those of scorers with protocols of their own are next to the scorer."""
ALL_CONVENTIONS = "all-conventions"
CONVENTIONS = {"any-of": "pairs", "first-text": "first-text", "row-label": "official-rows"}
"""The conventions in use, by the protocol that follows each: the same embeddings score very differently under them."""


def protocol(name: str) -> Protocol:
    """The protocol with a name, or UnknownName, which suggests the nearest."""
    if name not in PROTOCOLS and ":" not in name:
        raise unknown("protocol", name, [*PROTOCOLS, ALL_CONVENTIONS])
    return PROTOCOLS.find(name)


def conventions(rows_of: Protocol | None = None) -> dict[str, Protocol]:
    """The three conventions, on a whole benchmark or on the images and texts that another protocol selects."""
    found = {convention: protocol(name) for convention, name in CONVENTIONS.items()}
    if rows_of is None:
        return found
    return {
        convention: replace(
            scoring,
            definition=f"On the images and texts that {rows_of.name} selects. {scoring.definition}",
            first_images=rows_of.first_images,
            texts_per_image=scoring.texts_per_image or rows_of.texts_per_image,
        )
        for convention, scoring in found.items()
    }


def choose(names: Sequence[str]) -> dict[str, Protocol]:
    """Protocols by label, as a command line names them: a single one has the empty label.

    `all-conventions` names three, on the images and texts that the first other protocol selects, if there is one.

    Raises:
        ValueError: a name is unknown; see `protocol`.
    """
    own = [protocol(name) for name in names if name != ALL_CONVENTIONS]
    chosen = {one.name: one for one in own}
    if ALL_CONVENTIONS in names:
        chosen |= conventions(own[0] if own else None)
    return {"": own[0]} if len(chosen) == 1 else chosen


def scorer_of_protocols(names: Sequence[str]) -> str:
    """The name of the scorer that knows all of these protocols; errors as of `choose`."""
    scorers = [one.scorer for one in choose(names).values()]
    return next((name for name in scorers if name != Protocol.scorer), Protocol.scorer)


PAPER = "https://arxiv.org/abs/2209.15270"
README = "https://github.com/PaddlePaddle/ERNIE/tree/ernie-kit-open-v1.0/Research/ERNIE-ViL2 (readme.md)"
PADDLENLP = "https://github.com/PaddlePaddle/PaddleNLP/tree/develop/slm/model_zoo/ernie-vil2.0 (README.md)"
CHINESE_CLIP = "https://github.com/OFA-Sys/Chinese-CLIP/blob/master/Results.md"
FG_CLIP_2 = "https://arxiv.org/abs/2510.10921, the table of Chinese image-text retrieval"
FG_CLIP_2_COCO = "on what the paper calls the validation set of COCO-CN: 1,000 images with five translated sentences"
EARLIER_README = f"{README}, an earlier version"
ROWS_NOTE = (
    "computed by the release's evaluator, which labels by row number and counts ties for the model; every figure on "
    "COCO-CN is a multiple of 0.1 %, which 1,053 rows cannot give, but 1,000 can"
)
AIC_NOTE = 'on "the first 10,000 rows" of the validation split, as the source words it'


@dataclass(frozen=True)
class PaperResult:
    """A row that was published.

    Attributes:
        protocol: name of the protocol, or of the task, whose data it is on.
        model: "base" or "large"; "english", the EfficientNet-L2 with BERT-large; "ablation", of Table 4; "other", of
            other authors.
        label: how the source calls the model and its towers.
        values: recalls in percent by direction, and "mR"; "accuracy" of a task. What is
            not given is left out.
        fine_tuned: on the data that is scored; otherwise zero-shot.
        source: where the figures are published.
        note: what is known of how they were computed.
    """

    protocol: str
    model: str
    label: str
    values: Mapping[str, Mapping[str, float] | float]
    source: str
    note: str = ""
    fine_tuned: bool = False

    @property
    def title(self) -> str:
        """The label with how the model was trained and where the row was published, for a table."""
        how = "fine-tuned" if self.fine_tuned else "zero-shot"
        trained = "" if how in self.label or "fine-tuned" in self.label else f", {how}"
        return f"{self.label}{trained} ({'paper' if 'arxiv.org' in self.source else 'repository'})"

    @property
    def height(self) -> float:
        """Its R@1, the mean over the directions, or what it has instead of that; it orders rows."""
        recalls = [next(iter(value.values())) for value in self.values.values() if isinstance(value, Mapping)]
        return fmean(recalls or [value for value in self.values.values() if not isinstance(value, Mapping)])


def _recalls(*values: float) -> dict[str, float]:
    return dict(zip(("R@1", "R@5", "R@10"), values, strict=False))


def _both(image_to_text: tuple[float, ...], text_to_image: tuple[float, ...], mean: float | None = None) -> dict:
    values = {"image_to_text": _recalls(*image_to_text), "text_to_image": _recalls(*text_to_image)}
    return values if mean is None else values | {"mR": mean}


def _released(protocol: str, model: str, label: str, values: dict, source: str = EARLIER_README) -> PaperResult:
    return PaperResult(protocol, model, label, values, source, ROWS_NOTE if protocol == "coco-cn-test" else AIC_NOTE)


def _paper(table: int, protocol: str, model: str, label: str, values: dict, **more: Any) -> PaperResult:
    return PaperResult(protocol, model, label, values, f"{PAPER}, Table {table}", **more)


_ENGLISH, _ON_MSCOCO = "ERNIE-ViL 2.0, zero-shot", "ERNIE-ViL 2.0, fine-tuned on MSCOCO"
_FINE_TUNED = "ERNIE-ViL 2.0, fine-tuned"
_LARGE_CNN, _LARGE_VIT, _BASE = (
    "ERNIE-ViL 2.0 large (EfficientNet-L2), zero-shot",
    "ERNIE-ViL 2.0 large (ViT-L/14), zero-shot",
    "ERNIE-ViL 2.0 base (ViT-B/16), zero-shot",
)
_CHINESE_CLIP = "Chinese-CLIP ViT-B/16"
_SAME_COCO = "of the English model fine-tuned on MSCOCO"

_OF_FG_CLIP_2 = ("lit-cn", "dci-cn", "docci-cn", "flickr30k-cna-test", "coco-cn-translated")

PAPER_RESULTS = (
    # Tables 1 and 2
    _paper(1, "flickr30k-test", "english", _ENGLISH, _both((91.2, 99.1, 99.8), (77.4, 93.8, 96.4))),
    _paper(1, "flickr30k-test", "english", _ON_MSCOCO, _both((96.1, 99.9, 100.0), (85.0, 97.0, 98.3)),
           note="the rows that the table marks with *"),
    _paper(1, "mscoco-5k", "english", _ENGLISH, _both((63.1, 85.7, 91.4), (46.0, 71.4, 80.4))),
    _paper(2, "flickr30k-test", "english", _FINE_TUNED, _both((97.2, 100.0, 100.0), (93.3, 99.4, 99.8)),
           fine_tuned=True),
    _paper(2, "mscoco-5k", "english", _FINE_TUNED, _both((77.4, 93.6, 97.1), (59.5, 83.4, 90.1)), fine_tuned=True),
    # Tables 3 and 8; Table 3 prints one decimal of Table 8
    _paper(3, "coco-cn-test", "large", _LARGE_CNN, _both((69.1, 92.9, 97.1), (69.6, 91.2, 96.9), 86.1)),
    _paper(8, "coco-cn-test", "large", _LARGE_VIT, _both((68.6, 92.5, 97.5), (70.1, 92.5, 96.4))),
    _paper(8, "coco-cn-test", "base", _BASE, _both((66.5, 91.6, 96.2), (65.9, 90.1, 96.1))),
    _paper(3, "aic-icc-val-10k", "large", _LARGE_CNN, _both((33.7, 52.1, 60.0), (19.0, 35.3, 43.5), 40.6)),
    _paper(8, "aic-icc-val-10k", "large", _LARGE_VIT, _both((32.3, 51.6, 59.9), (20.2, 37.0, 45.4))),
    _paper(8, "aic-icc-val-10k", "base", _BASE, _both((30.4, 48.9, 57.5), (17.9, 34.2, 42.5))),
    # Table 4: mean recall of image retrieval (text to image), of text retrieval, and of both
    *(
        _paper(4, "flickr30k-test", "ablation", f"ablation {name}, zero-shot",
               {"text_to_image": {"mR": images}, "image_to_text": {"mR": texts}, "mR": both})
        for name, images, texts, both in (
            ("A: image-caption pairs", 81.9, 91.6, 86.8),
            ("B: A and (tag, image)", 83.7, 92.6, 88.2),
            ("C: A and (image, image)", 83.6, 91.3, 87.5),
            ("D: A and (caption, caption)", 83.8, 92.1, 88.0),
            ("E: all", 85.1, 93.0, 89.1),
        )
    ),
    # Table 6, whose caption calls text to image what its text and columns call image to text
    *(
        _paper(6, "cxc", model, label,
               {"image_to_text": {"mR": i2t}, "text_to_image": {"mR": t2i}, "text_to_text": {"mR": t2t},
                "image_to_image": {"mR": i2i}}, note=note, fine_tuned=True)
        for model, label, i2t, t2i, t2t, i2i, note in (
            ("english", "ERNIE-ViL 2.0", 90.0, 79.0, 64.7, 72.4, _SAME_COCO),
            ("other", "ALIGN", 89.9, 79.2, 62.5, 73.3, ""),
            ("other", "DE_T2T+I2T", 77.3, 65.7, 60.4, 65.7, ""),
        )
    ),
    # Table 7
    _paper(7, "snli-ve", "english", "ERNIE-ViL 2.0", {"accuracy": 76.6}, fine_tuned=True),
    _paper(7, "snli-ve", "other", "UNITER", {"accuracy": 78.3}, fine_tuned=True),
    _paper(7, "nlvr2", "english", "ERNIE-ViL 2.0", {"accuracy": 66.0}, fine_tuned=True),
    _paper(7, "nlvr2", "other", "VisualBERT", {"accuracy": 67.0}, fine_tuned=True),
    # What the release says of its files
    _released("coco-cn-test", "base", "Base (ViT-B/16, ERNIE 3.0 Base), OPEN_ERNIE_VIL2_BASE_ViT.pdparams",
              _both((66.5, 91.6, 96.2), (65.9, 90.1, 96.1), 84.4), README),
    _released("coco-cn-test", "base", "Base (ViT-B/16, ERNIE 3.0 Base), ERNIE_VIL2_BASE_ViT.pdparams",
              _both((65.9, 91.4, 96.3), (66.0, 90.0, 96.1), 84.28)),
    _released("coco-cn-test", "base", "Base (EfficientNet-B5, ERNIE 2.0 Base)", _both((65.3,), (62.7,), 83.17)),
    _released("coco-cn-test", "large", "Large (ViT-L/14, ERNIE 3.0 Large)", _both((68.8,), (70.3,), 86.32)),
    _released("coco-cn-test", "large", "Large (EfficientNet-L2, ERNIE 2.0 Large)", _both((69.5,), (69.8,), 86.28)),
    _released("aic-icc-val-10k", "base", "Base (ViT-B/16, ERNIE 3.0 Base)", _both((30.41,), (17.93,), 38.57)),
    _released("aic-icc-val-10k", "base", "Base (EfficientNet-B5, ERNIE 2.0 Base)", _both((26.05,), (14.77,), 34.47)),
    _released("aic-icc-val-10k", "large", "Large (ViT-L/14, ERNIE 3.0 Large)", _both((32.29,), (20.17,), 41.08)),
    _released("aic-icc-val-10k", "large", "Large (EfficientNet-L2, ERNIE 2.0 Large)",
              _both((33.65,), (19.01,), 40.58)),
    # FG-CLIP 2's table of Chinese retrieval, R@1 image to text and text to image, zero-shot
    *(
        PaperResult(protocol, "other", f"{model}, zero-shot", _both((to_text,), (to_image,)), FG_CLIP_2,
                    FG_CLIP_2_COCO if protocol == "coco-cn-translated" else "")
        for model, *figures in (
            ("R2D2 ViT-B/16", 35.7, 27.4, 25.9, 27.3, 36.1, 36.9, 69.7, 51.1, 60.1, 45.5),
            (_CHINESE_CLIP, 45.7, 35.6, 30.1, 27.9, 44.6, 43.1, 75.8, 62.4, 68.8, 54.9),
            ("SigLIP 2 ViT-B/16", 4.6, 2.6, 5.0, 4.0, 7.6, 5.7, 71.7, 49.1, 68.6, 46.2),
            ("FG-CLIP 2 ViT-B/16", 82.4, 81.1, 53.9, 55.7, 71.2, 75.4, 85.4, 69.9, 77.2, 62.9),
            ("R2D2 ViT-L/14", 48.3, 33.3, 35.6, 34.2, 49.5, 46.3, 78.8, 60.0, 69.6, 52.7),
            ("Chinese-CLIP ViT-L/14", 48.6, 38.9, 31.4, 32.7, 49.7, 50.8, 82.9, 69.6, 74.3, 59.9),
            ("SigLIP 2 ViT-L/16", 14.8, 10.9, 13.6, 14.4, 24.6, 27.3, 79.8, 53.2, 74.2, 51.7),
            ("FG-CLIP 2 ViT-L/16", 86.3, 85.9, 60.4, 62.2, 77.6, 81.9, 90.3, 75.0, 82.8, 66.5),
            ("SigLIP 2 ViT-So400m/16", 17.0, 10.8, 13.4, 12.0, 25.0, 21.3, 78.4, 51.7, 72.0, 50.7),
            ("Meta CLIP 2 ViT-H/14", 77.2, 67.6, 53.8, 52.1, 73.8, 77.2, 89.3, 72.2, 80.1, 63.1),
            ("FG-CLIP 2 ViT-So400m/16", 87.6, 86.3, 62.7, 65.1, 79.7, 84.0, 91.5, 77.2, 83.2, 68.1),
        )
        for protocol, to_text, to_image in zip(_OF_FG_CLIP_2, figures[::2], figures[1::2], strict=True)
    ),
    # Fine-tuned, and before
    PaperResult("flickr30k-cn-test", "base", "ernie_vil-2.0-base-zh, fine-tuned by PaddleNLP",
                _both((88.8, 97.9, 99.4), (72.42, 91.74, 95.76)), PADDLENLP, "on the valid split", fine_tuned=True),
    *(
        PaperResult(protocol, "other", f"{_CHINESE_CLIP}, {'fine-tuned' if tuned else 'zero-shot'}", values,
                    CHINESE_CLIP, fine_tuned=tuned)
        for protocol, tuned, values in (
            ("coco-cn-test", False, _both((57.0, 84.1, 93.6), (62.2, 86.6, 94.9))),
            ("coco-cn-test", True, _both((77.4, 96.2, 98.9), (77.0, 97.1, 99.0))),
            ("flickr30k-cn-test", False, _both((74.6, 93.5, 97.1), (62.7, 86.9, 92.8))),
            ("flickr30k-cn-test", True, _both((93.5, 99.0, 99.5), (79.1, 94.8, 97.4))),
            ("muge-val", False, dict[str, Any](text_to_image=_recalls(52.1, 76.7, 84.4), mR=71.1)),
            ("muge-val", True, dict[str, Any](text_to_image=_recalls(58.4, 83.6, 90.0), mR=77.4)),
        )
    ),
)  # fmt: skip


def paper_results(protocol: str, model: str | None = None) -> list[PaperResult]:
    """The published rows on a protocol's data, of one model or of all; none for data that the authors did not use.

    Zero-shot ones come first, and of these and of the others the best, by R@1.

    Those of the ablation are in `PAPER_RESULTS` alone: they are of a training set of their own.
    """
    rows = [row for row in PAPER_RESULTS if row.protocol == protocol and row.model != "ablation"]
    chosen = [row for row in rows if model in (None, row.model)]
    return sorted(chosen, key=lambda row: (row.fine_tuned, -row.height))
