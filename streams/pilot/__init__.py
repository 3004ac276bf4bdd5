"""The pilot report: what to expect of adaptation on somebody's own recordings, before anything is rolled out.

options    what is asked, and what things cost
work       the jobs that worker processes do: choose a recipe, train, calibrate, leave devices out, follow devices
study      runs the jobs and gathers what they found
gains      from answers to gains: per device, over devices, and expected where there are no labels
economics  what follows per year
advice     the mode to start with, and what could go wrong
figures    plots as SVG text
page       the HTML page and the files of a pilot
"""
