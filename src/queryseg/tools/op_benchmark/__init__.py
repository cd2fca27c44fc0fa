"""Speed and memory of the operators against what users run today.

Each file `<op>_cases.py` describes the cases of one operator; `measure.py` runs them and
`command.py` is the command line of `benchmarks/ops.py` and of `queryseg.tools.benchmark --op`.
"""
