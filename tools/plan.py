"""What a run needs before it is run: memory, traffic, loader rates, days, and what to change when it does not fit.

python tools/plan.py -c configs/pretrain/vit_b16_ernie_base_zh.yaml --ranks 112 --device a100-80g
python tools/plan.py -c configs/demo/emoji.yaml --ranks 2 --device cpu --json plan.json
"""

import argparse
import json
import os
import sys

DEVICES = "a100-40g, a100-80g, h100-80g, h200-141g, v100-32g, rtx-4090, cpu"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", help="YAML overlay over the defaults of configs/default.yaml")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="Section.key=value",
                        help="overrides one value; may be repeated")  # fmt: skip
    parser.add_argument("--ranks", type=int, required=True, help="devices, one rank on each")
    parser.add_argument("--device", required=True, help=f"one of {DEVICES}")
    parser.add_argument("--utilisation", type=float, default=0.35,
                        help="share of the device's peak speed that training reaches (default 0.35)")  # fmt: skip
    parser.add_argument(
        "--bandwidth", type=float, help="GB/s that leave a rank (default: the device's link, its network above 8 ranks)"
    )
    parser.add_argument("--sample-kb", type=float, default=50, help="stored kilobytes of a sample (default 50)")
    parser.add_argument("--json", help="also write all figures to this file")
    arguments = parser.parse_args()
    if arguments.ranks < 1 or not 0 < arguments.utilisation <= 1:
        parser.error("--ranks is 1 or more, --utilisation above 0 and at most 1")

    from ernie_vil2.config import ConfigError, load_config
    from ernie_vil2.planning.devices import check, find_device

    try:
        device = find_device(arguments.device)
        config = load_config(arguments.config, arguments.override)
        check(config, arguments.ranks, device)
    except (ConfigError, ValueError) as error:
        return fail(error)

    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's remarks on traces
    from ernie_vil2.files import write_text
    from ernie_vil2.planning.summary import plan_run

    try:
        text, made, advice = plan_run(
            lambda overrides: load_config(arguments.config, [*arguments.override, *overrides]),
            arguments.ranks,
            device,
            arguments.utilisation,
            round(arguments.sample_kb * 1000),
            arguments.bandwidth and arguments.bandwidth * 1e9,
        )
    except (ConfigError, ValueError) as error:
        return fail(error)
    print(text)
    if arguments.json:
        figures = made.as_dict() | {"advice": advice and {"overrides": advice.overrides, **advice.plan.as_dict()}}
        write_text(arguments.json, json.dumps(figures, indent=1))
    return 0


def fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
