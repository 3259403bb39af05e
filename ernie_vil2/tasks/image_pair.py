"""Statements about two images (NLVR2, arXiv 1811.00491)."""

from ernie_vil2.data.readers.entailment import NLVR2_LABELS
from ernie_vil2.tasks.statements import StatementTask


class ImagePairTask(StatementTask):
    """True or false of a left and a right image."""

    labels = NLVR2_LABELS
    images = 2
