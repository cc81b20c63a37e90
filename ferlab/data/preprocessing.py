"""Preprocessing: from the pixels of an image to the input of a network.

Importing torchvision takes longer than importing torch; most scripts read prepared splits and need
neither this module nor torchvision.
"""

import torch
from torchvision.transforms import v2

from ferlab.constants import IMAGE_SIZE, MEAN, STD

preprocess = v2.Compose(
    [
        v2.Grayscale(num_output_channels=1),
        v2.Resize((IMAGE_SIZE, IMAGE_SIZE), antialias=True),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([MEAN], [STD]),
    ]
)
"""What a network is fed: uint8 `(..., 1 or 3, H, W)`, RGB if 3, any size -> float32
`(..., 1, 48, 48)` in [-1, 1]. The one definition, for prepared splits and live faces alike; for
machines without torch, `onnx_model.as_input` repeats it, and a test holds the two together."""
