"""What a run exports for monitoring. Knows nothing of streams: they hand their values in."""
