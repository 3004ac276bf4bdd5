"""How releases come to be in force: the controller, its history, and what receivers do."""
