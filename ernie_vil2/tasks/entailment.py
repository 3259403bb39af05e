"""Visual entailment (SNLI-VE, arXiv 1901.06706): what an image says of a hypothesis."""

from ernie_vil2.data.readers.entailment import SNLI_VE_LABELS
from ernie_vil2.tasks.statements import StatementTask


class EntailmentTask(StatementTask):
    """Entailed, contradicted or neither."""

    labels = SNLI_VE_LABELS
    images = 1
