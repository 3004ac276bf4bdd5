"""What ``acclimate continual`` is made of: ways of learning from delayed labels, compared on groups in turn.

options      what is run, and what a folder of results is bound to
runs         one run: its name, its file, and what is kept of it
study        the work in worker processes
results      from runs to the lines of a table
page         summary.md
figures      plots
"""
