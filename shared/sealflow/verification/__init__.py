"""The core verification: evidence + requirement + bytes → verdict. Nothing else decides."""
