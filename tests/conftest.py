"""What all tests share."""

import torch

# Tiny tensors on shared cores: a second thread only waits.
torch.set_num_threads(1)
