"""The pilot report: tell what adaptation would do on somebody's own recordings, before anything is rolled out.

options      the options of a pilot, and the costs
jobs         the jobs: choose a recipe, train, calibrate, leave devices out, follow devices
work         does the jobs in a worker process
watch        remembers what the policy's gate saw
shifts       measures the kind of shift that a device shows
study        runs the jobs and gathers their findings
findings     what a pilot finds out, as records that the report reads
gains        makes gains of answers: per device, over devices, and expected where there are no labels
economics    works out a year
advice       chooses the mode to start with, and names the risks
conclusions  puts the years of all rungs, thresholds and advice into one report
environment  writes the settings that a worker is started with
figures      draws plots as SVG text
page         writes the HTML page
files        writes a pilot's folder
"""
