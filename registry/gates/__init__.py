"""Gates: what a version must show before the fleet gets it. Pure functions of arrays and bundles that return findings.

A gate that had nothing to judge says ``skipped`` and why; it never says ``passed`` of what it has not looked at.
"""
