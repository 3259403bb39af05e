"""Compares models on your own images and texts: recall with 95 % intervals, and which differences are not chance.

    python docs/examples/compare_models.py runs/mine ernie-vil-2.0-base-zh --data my-images

The data is whatever `ernie-vil2 eval --data` takes: a folder of images with a table, shards, or a benchmark.
"""

import argparse

import ernie_vil2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="the others are compared with the first")
    parser.add_argument("--data", required=True)
    parser.add_argument("--resamples", type=int, default=10_000)
    options = parser.parse_args()

    found = ernie_vil2.compare(options.models, options.data, resamples=options.resamples)
    figures = found["figures"]
    for number in range(len(figures["model"])):
        row = {column: values[number] for column, values in figures.items()}
        if row["figure"].endswith(("R@1", "mR")):
            print(f"{row['model']:30} {row['figure']:24} {row['value']:6.2f}  [{row['low']:.2f}, {row['high']:.2f}]")
    print(*found["verdicts"], sep="\n")


if __name__ == "__main__":
    main()
