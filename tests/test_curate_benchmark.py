"""benchmarks/curate.py on few rows: its made measures fit the steps, and the near pairs that it plants are found."""

from benchmarks.curate import joins, vectors


def test_joins_of_made_measures_and_near_pairs():
    assert float(joins(3000)["rows/s and core"].replace(",", "")) > 0
    found = vectors(2000)
    assert found["near pairs found, %"] == "100.0" and float(found["NumPy, CPU s"]) >= 0
