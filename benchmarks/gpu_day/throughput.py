"""Step 4, throughput: steps of ViT-B/16 and ERNIE base on one GPU, next to the plan.

{bfloat16, float32} x {direct, micro batches of 64, 128 and 256, recomputation}, with dropout by counters; direct steps
also with Paddle's own dropout, which does not go with the others. Batches are noise that lies on the device; two ways
are also fed from shards of photographs.
"""

import tarfile
from io import BytesIO

from benchmarks.gpu_day.measuring import Measurement, Options, Results, make_measurement
from benchmarks.gpu_day.training import WAYS, Case, measure_case, plan_case, shards_folder

# The case of benchmarks/expectations.yaml; `scaling` takes it on more GPUs.
EXPECTED_CASE = Case("bfloat16", "micro128")
DRY_CASE = Case("float32", "micro4")
CASE_SECONDS = 150
# Photographs in the shards: more than two steps of 1,024 rows read, so that no step has a photograph twice.
NUM_PHOTOGRAPHS, DRY_PHOTOGRAPHS = 2500, 40
PHOTOGRAPHS_PER_SHARD = 500


def list_cases(options: Options) -> list[Case]:
    """Return the cases, the important ones first."""
    if options.is_dry:
        return [DRY_CASE, Case("float32", "direct", "native"), Case("float32", "recompute", data="shards")]
    cases = []
    for precision in ("bfloat16", "float32"):
        ways = [way for way in WAYS if way != EXPECTED_CASE.way]
        cases += [
            Case(precision, EXPECTED_CASE.way),
            Case(precision, "direct", "native"),
            Case(precision, EXPECTED_CASE.way, data="shards"),
            *(Case(precision, way) for way in ways),
            Case(precision, "direct", data="shards"),
        ]
    return cases


def list_measurements(options: Options) -> list[Measurement]:
    measurements = [
        make_measurement("throughput", "plan", options, 120),
        make_measurement("throughput", "photographs", options, 120),
    ]
    for case in list_cases(options):
        measurements.append(make_measurement("throughput", case.name, options, CASE_SECONDS))
    return measurements


def measure(name: str, options: Options, results: Results) -> None:
    if name == "plan":
        plan_cases(options, results)
    elif name == "photographs":
        write_photographs(options, results)
    else:
        cases = {case.name: case for case in list_cases(options)}
        measure_case(cases[name], options, results)


def plan_cases(options: Options, results: Results) -> None:
    """Add the plan of each case on one GPU, and of the expected one on more; the towers are measured once."""
    from benchmarks.gpu_day.scaling import list_rank_counts
    from ernie_vil2.config import load_config
    from ernie_vil2.device import runtime
    from ernie_vil2.planning.plan import Plan
    from ernie_vil2.planning.towers import Towers

    runtime.set_device(options.device)
    cases = list_cases(options)
    towers = Towers(load_config(None, cases[0].list_overrides(options, 1)))
    runs = [(case, 1) for case in cases]
    runs += [(cases[0], num_ranks) for num_ranks in list_rank_counts(options) if num_ranks > 1]
    plans = {}
    for case, num_ranks in runs:
        plans[f"{case.name}_{num_ranks}"] = plan_case(case, towers, options, num_ranks, Plan)
    results.add(plans=plans)


def write_photographs(options: Options, results: Results) -> None:
    """Write shards of JPEG files of 500x375 pixels, as in docs/notes/loader.md, each with a caption of its own."""
    from benchmarks.loader import jpeg_files

    folder = shards_folder(options)
    folder.mkdir(parents=True, exist_ok=True)
    files = jpeg_files(options.choose(NUM_PHOTOGRAPHS, DRY_PHOTOGRAPHS), quality=75)
    for start in range(0, len(files), PHOTOGRAPHS_PER_SHARD):
        with tarfile.open(folder / f"{start:06}.tar", "w") as shard:
            for number, file in enumerate(files[start : start + PHOTOGRAPHS_PER_SHARD], start):
                for suffix, content in (("jpg", file), ("txt", f"第 {number} 张照片，古老的寺庙与花".encode())):
                    member = tarfile.TarInfo(f"{number:06}.{suffix}")
                    member.size = len(content)
                    shard.addfile(member, BytesIO(content))
    results.add(photographs=len(files), bytes_per_photograph=sum(map(len, files)) / len(files))
