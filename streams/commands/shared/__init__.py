"""What several commands need: groups of options and tables."""
