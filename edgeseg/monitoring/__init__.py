"""Whether a stream still looks like what its bundle was made for. Knows nothing of sources and sinks."""
