"""The parts of ``acclimate continual``: ways of learning from delayed labels, compared on groups in turn.

options      the options of a comparison, and the part of them that a folder of results is bound to
runs         one run: its name, its file, and its result there
study        does the runs in worker processes
results      makes the lines of a table of the runs
page         summary.md
figures      plots
"""
