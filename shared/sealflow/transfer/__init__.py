"""Transfer: an artifact as one encrypted object, written in one pass over the source and read frame by frame."""
