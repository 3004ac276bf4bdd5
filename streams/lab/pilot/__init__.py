"""The pilot report: what to expect of adaptation on somebody's own recordings, before anything is rolled out.

options      what is asked, and what things cost
jobs         what there is to do: choose a recipe, train, calibrate, leave devices out, follow devices
work         how a worker process does it
watch        what the gate of the policy saw
shifts       what kind of shift a device shows
study        runs the jobs and gathers what they found
gains        from answers to gains: per device, over devices, and expected where there are no labels
economics    what follows per year
advice       the mode to start with, and what could go wrong
conclusions  a year of each rung, thresholds, and the above in one report
environment  the settings that a worker is started with
figures      plots as SVG text
page         the HTML page
files        what a pilot leaves in its folder
"""
