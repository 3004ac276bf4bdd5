"""Keys, whom they belong to, and what their holders have signed."""
