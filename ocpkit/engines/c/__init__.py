"""The engine in C: a kernel written by hand around functions emitted for a model, compiled once and kept on disk."""
