"""Reading and preprocessing, one file a modality."""
