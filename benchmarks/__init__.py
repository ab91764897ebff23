"""Every speed and memory figure that a document quotes, with its peer in the same run."""
