"""``acclimate evaluate``: train or load the sources, run every method over every stream, write tables and plots.

options      what is evaluated, and which part of it a folder is bound to
tasks        the smallest pieces of work, and the file of those that are finished
prepare      source models, made once and kept
task_runner  one piece of work, in a worker process
processes    worker processes, and what happens when one dies
evaluation   all of it in order
results      finished tasks to rows;  summary and figures draw them
"""
