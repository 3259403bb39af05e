"""What ERNIE-ViL 2.0's authors report for their models, to print beside a result.

Only figures that were found in the named source, as they stand there. The tables of the paper itself (arXiv
2209.15270) were not at hand: its rows on MSCOCO, its fine-tuned rows and most of its other R@5 and R@10 are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

README = "https://github.com/PaddlePaddle/ERNIE/tree/ernie-kit-open-v1.0/Research/ERNIE-ViL2 (readme.md)"
EARLIER_README = f"{README}, an earlier version"
PAPERS_WITH_CODE = "https://paperswithcode.com/paper/ernie-vil-2-0-multi-view-contrastive-learning"
ROWS_NOTE = (
    "computed by the release's evaluator, which labels by row number and counts ties for the model; every figure on "
    "COCO-CN is a multiple of 0.1 %, which 1,053 rows cannot give, but 1,000 can"
)
AIC_NOTE = 'on "the first 10,000 rows" of the validation split, as the source words it'


@dataclass(frozen=True)
class PaperResult:
    """A row that was published.

    Attributes:
        protocol: name of the protocol whose data it is on.
        model: "base" or "large", or "best" where the source says no more.
        label: how the source calls the model and its towers.
        values: recalls in percent by direction, and "mR", as `format_table` takes them; what is not given is left out.
        source: where the figures stand.
        note: what is known of how they were computed.
    """

    protocol: str
    model: str
    label: str
    values: Mapping[str, Mapping[str, float] | float]
    source: str
    note: str = ""


def _recalls(*values: float) -> dict[str, float]:
    return dict(zip(("R@1", "R@5", "R@10"), values, strict=False))


def _first_places(image_to_text: float, text_to_image: float, mean: float) -> dict:
    return {"image_to_text": _recalls(image_to_text), "text_to_image": _recalls(text_to_image), "mR": mean}


PAPER_RESULTS = (
    PaperResult(
        "coco-cn-test",
        "base",
        "Base (ViT-B/16, ERNIE 3.0 Base), OPEN_ERNIE_VIL2_BASE_ViT.pdparams",
        {"image_to_text": _recalls(66.5, 91.6, 96.2), "text_to_image": _recalls(65.9, 90.1, 96.1), "mR": 84.4},
        README,
        ROWS_NOTE,
    ),
    PaperResult(
        "coco-cn-test",
        "base",
        "Base (ViT-B/16, ERNIE 3.0 Base), ERNIE_VIL2_BASE_ViT.pdparams",
        {"image_to_text": _recalls(65.9, 91.4, 96.3), "text_to_image": _recalls(66.0, 90.0, 96.1), "mR": 84.28},
        EARLIER_README,
        ROWS_NOTE,
    ),
    PaperResult(
        "coco-cn-test",
        "base",
        "Base (EfficientNet-B5, ERNIE 2.0 Base)",
        _first_places(65.3, 62.7, 83.17),
        EARLIER_README,
        ROWS_NOTE,
    ),
    PaperResult(
        "coco-cn-test",
        "large",
        "Large (ViT-L/14, ERNIE 3.0 Large)",
        _first_places(68.8, 70.3, 86.32),
        EARLIER_README,
        ROWS_NOTE,
    ),
    PaperResult(
        "coco-cn-test",
        "large",
        "Large (EfficientNet-L2, ERNIE 2.0 Large)",
        _first_places(69.5, 69.8, 86.28),
        EARLIER_README,
        ROWS_NOTE,
    ),
    PaperResult(
        "coco-cn-test",
        "best",
        "the paper's best, zero-shot",
        {"image_to_text": _recalls(69.1, 92.9, 97.1), "text_to_image": _recalls(69.6, 91.2, 96.9)},
        README,
    ),
    PaperResult(
        "aic-icc-val-10k",
        "base",
        "Base (ViT-B/16, ERNIE 3.0 Base)",
        _first_places(30.41, 17.93, 38.57),
        EARLIER_README,
        AIC_NOTE,
    ),
    PaperResult(
        "aic-icc-val-10k",
        "base",
        "Base (EfficientNet-B5, ERNIE 2.0 Base)",
        _first_places(26.05, 14.77, 34.47),
        EARLIER_README,
        AIC_NOTE,
    ),
    PaperResult(
        "aic-icc-val-10k",
        "large",
        "Large (ViT-L/14, ERNIE 3.0 Large)",
        _first_places(32.29, 20.17, 41.08),
        EARLIER_README,
        AIC_NOTE,
    ),
    PaperResult(
        "aic-icc-val-10k",
        "large",
        "Large (EfficientNet-L2, ERNIE 2.0 Large)",
        _first_places(33.65, 19.01, 40.58),
        EARLIER_README,
        AIC_NOTE,
    ),
    PaperResult(
        "aic-icc-val-10k",
        "best",
        "the paper's row, as Papers with Code lists it",
        {"text_to_image": _recalls(19.0, 35.3, 43.5)},
        PAPERS_WITH_CODE,
    ),
    PaperResult(
        "flickr30k-test",
        "best",
        "the paper's best English model, zero-shot",
        {"image_to_text": _recalls(96.1, 99.9, 100.0), "text_to_image": _recalls(85.0, 97.0, 98.3)},
        README,
    ),
)


def paper_results(protocol: str, model: str | None = None) -> list[PaperResult]:
    """The published rows on a protocol's data, of one model or of all; none for data that the authors did not use."""
    return [row for row in PAPER_RESULTS if row.protocol == protocol and model in (None, row.model)]
