"""Running artefacts: one file an engine behind one Session. Nothing here imports torch at import time."""
