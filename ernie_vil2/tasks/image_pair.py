"""Statements about two images (NLVR2, arXiv 1811.00491)."""

from ernie_vil2.data.readers.published import nlvr2
from ernie_vil2.tasks.statements import StatementTask


class ImagePairTask(StatementTask):
    """True or false of a left and a right image."""

    labels = nlvr2.LABELS
    images = 2
