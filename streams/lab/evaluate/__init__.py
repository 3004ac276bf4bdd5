"""``acclimate evaluate``: train or load the sources, run every method over every stream, write tables and plots.

options      the options of an evaluation, and the part of them that a folder is bound to
recordings   the recordings, source and target apart
tasks        the smallest pieces of work, and the file of those that are finished
task_runner  does one piece of work in a worker process
evaluation   does everything in order (`acclimate.streams.lab.study` makes the sources and runs the workers)
rows         makes a row of a finished task; results collects them, lines sums them up, summary and figures show them
"""
