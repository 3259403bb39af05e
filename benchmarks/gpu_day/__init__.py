"""The first day on GPUs: checks and measurements that end in one report, `tools/gpu_day.py`.

    command.py       options, and the day from beginning to end
    day.py           runs the measurements, each in a process with a time limit, and records what comes of them
    processes.py     starts such a process, and ends everything that it has started
    measuring.py     options and results of a measurement; `measure.py` is its program
    report.py        report.md and the archive, from report.json
    comparison.py    expected and measured figures side by side

Each step of the day is a module: `machine`, `correctness`, `ceilings`, `throughput`, `scaling`, `failures`, `accuracy`.
It has `list_measurements(options)`, the important ones first, and `measure(name, options, results)`, which runs in the
process of a measurement and adds its figures to the results. `training.py` times steps of the trainer, and
`profiles.py` reads what Paddle's profiler recorded.
"""
