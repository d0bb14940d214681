"""The PyTorch definition that trains and exports.

`perceiver.py` says what a Perceiver is; a modality is one file in `inputs/` and one in `tasks/`. To read a whole model,
for example the one that classifies images with Fourier positions, open four files:

1. `tasks/image.py`: the model, from pixels to logits;
2. `inputs/image.py`: pixels to tokens;
3. `positions.py`: the Fourier features beside the pixels;
4. `perceiver.py`: tokens to latents, latents to logits.
"""
