"""The state that an online method carries along: optimizer state, a reservoir of windows, random state."""
