"""What a tagging run says at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from ernie_vil2.data.samples import BadSampleReport, first_names
from ernie_vil2.io.terminal import counted
from ernie_vil2.tagging.journal import TaggedRows


@dataclass
class TaggingReport:
    """Counts of a run.

    Args:
        samples: those read, and those that could not be used.
        ids: distinct ids of samples that could be used.
        untagged: how many of them got no tag.
        untagged_names: the first of those.
        shared: how many further ids are names of several different images, which have no tags for that.
        shared_names: the first of those.
        tagged: by language, the ids with tags.
        tags: by language, the tags of all ids.
        remarks: what the tagger has to say beyond that.
    """

    samples: BadSampleReport = field(default_factory=BadSampleReport)
    ids: int = 0
    untagged: int = 0
    untagged_names: list[str] = field(default_factory=list)
    shared: int = 0
    shared_names: list[str] = field(default_factory=list)
    tagged: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    remarks: Sequence[str] = ()

    def add(self, batch: TaggedRows, rows: int, shared: Container[str] = ()) -> None:
        """Takes one more batch, of so many rows, without the ids that are `shared`."""
        self.samples.add(rows, batch.bad)
        self.shared += len(batch.shared)
        self.shared_names += batch.shared[: BadSampleReport.NAMES - len(self.shared_names)]
        for name, tags in batch.found:
            if tags is None or name in shared:
                continue
            self.ids += 1
            if not tags:
                self.untagged += 1
                if len(self.untagged_names) < BadSampleReport.NAMES:
                    self.untagged_names.append(name)
            for language, texts in tags.items():
                self.tagged[language] += 1
                self.tags[language] += len(texts)

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "ids": self.ids,
            "untagged": {"count": self.untagged, "names": self.untagged_names},
            "shared": {"count": self.shared, "names": self.shared_names},
            "languages": {language: {"ids": ids, "tags": self.tags[language]} for language, ids in self.tagged.items()},
            "remarks": list(self.remarks),
            "samples": self.samples.as_dict(),
        }

    @classmethod
    def from_dict(cls, saved: dict) -> TaggingReport:
        """The report that `as_dict` gave."""
        samples = BadSampleReport()
        samples.merge(saved["samples"])
        languages = saved["languages"]
        return cls(
            samples,
            saved["ids"],
            saved["untagged"]["count"],
            saved["untagged"]["names"],
            saved["shared"]["count"],
            saved["shared"]["names"],
            Counter({language: counts["ids"] for language, counts in languages.items()}),
            Counter({language: counts["tags"] for language, counts in languages.items()}),
            saved["remarks"],
        )

    def __str__(self) -> str:
        tagged = self.ids - self.untagged
        lines = [f"{tagged:,} of {counted(self.ids, 'id')} {'has' if tagged == 1 else 'have'} tags"]
        for language, ids in sorted(self.tagged.items()):
            of = f"tags_{language}" if language else "tags"
            lines.append(f"  {of}: {counted(ids, 'id')}, {self.tags[language] / ids:.1f} tags each")
        if self.untagged:
            lines.append(f"ids without tags: {first_names(self.untagged, self.untagged_names)}")
        if self.shared:
            found = first_names(self.shared, self.shared_names)
            lines.append(f"names of several different images, left without tags: {found}; give each an image_id")
        return "\n".join([*lines, *self.remarks, str(self.samples)])
