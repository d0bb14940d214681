"""The PyTorch definition that trains and exports."""
