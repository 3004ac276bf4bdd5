"""LeanTTA, its settings, and the shift magnitude with its calibration."""
