"""Search: candidates built and measured, the best chosen."""
