"""The bundle: its files, manifest and samples."""
