"""Studies: models that differ in their configuration, on several seeds, measured once and compared with intervals.

`definition.py` reads what a study is, `runs.py` makes its runs, `measure.py` scores one, `collect.py` gathers what the
runs say and names what is missing, `tables.py` compares and draws,
`step_cost.py` finds the steps that take equal CPU time, `command.py` is `tools/study.py`.
"""
