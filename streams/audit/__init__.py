"""From topics to evidence: predictions joined with the truth, figures and reports."""
