"""Studies: models that differ in their configuration, trained with several seeds, and compared with intervals.

`definition.py` reads a study, `runs.py` makes its runs, `measure.py` scores one, `collect.py` collects the results and
names what is missing, `tables.py` makes tables and the page, `step_cost.py` finds the steps that take equal CPU time,
and `command.py` is `tools/study.py`.
"""
