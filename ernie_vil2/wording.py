"""Numbers in words."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 shard`, `2 shards`, `1,555 queries`; the plural is the noun with an s unless given."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
