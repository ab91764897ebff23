"""The lineage of data that DVC tracks: what a repository says its files are and came from, and whether that holds.

Nothing here imports DVC, runs code of the repository, writes, or trusts a time, a mode or a state database.
"""
