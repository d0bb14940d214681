"""Parts of export_peers.py: transformers' models, the exporters, what runs their graphs, and what is measured."""
