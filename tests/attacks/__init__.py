"""Attacks: each is a way in that somebody would try, and each must be refused by name."""
