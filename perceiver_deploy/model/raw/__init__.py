"""Models that take raw data: the preprocessing a bundle states, and what its outputs need, as a part of the graph.

One class per modality, around any model of the tasks it serves; `building.raw_model` chooses.
"""
