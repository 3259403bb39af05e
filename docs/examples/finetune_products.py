"""Fine-tunes a model on a CSV of products, and scores it before and after on products that it has not seen.

    python docs/examples/finetune_products.py MODEL products.csv --output runs/products

The CSV has the columns `image` (a path next to it) and `title`. A tenth of the images each is validation and test data.
Further options go to training, for example `-o Training.epochs=5`.
"""

import argparse
import csv
import json
import zlib
from pathlib import Path

from ernie_vil2.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("products", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/products"))
    options, settings = parser.parse_known_args()

    tables = options.output.with_name(options.output.name + "-tables")
    tables.mkdir(parents=True, exist_ok=True)
    try:
        with options.products.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["image"], row["title"]) for row in csv.DictReader(file)]
    except UnicodeDecodeError:
        raise SystemExit(f"error: {options.products} is not UTF-8: save it as CSV UTF-8") from None
    except KeyError as column:
        raise SystemExit(f"error: {options.products} has no column {column}") from None
    for split, tenths in {"train": range(8), "val": [8], "test": [9]}.items():
        chosen = [row for row in rows if zlib.crc32(row[0].encode()) % 10 in tenths]  # an image is in one split
        if not chosen:
            raise SystemExit(f"error: {options.products}: of {len(rows)} rows none is in {split}; it needs more images")
        with (tables / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("image", "caption_zh"), *chosen])
    values = {
        "Model.weights": options.model,
        "Data.train": [{"data": [str(tables)], "images": str(options.products.parent.resolve())}],
        "Training.output": str(options.output),
    }
    train = ["-c", "configs/finetune/own.yaml"]
    for key, value in values.items():
        # Settings are YAML, of which JSON is a part: a path may have commas, brackets and colons.
        train += ["-o", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    code = run("train", [*train, *settings])
    raise SystemExit(code or run("report", ["--run", str(options.output)]))


if __name__ == "__main__":
    main()
