"""What all tests share."""

import atexit
import os
import shutil
import tempfile

import torch

# Tiny tensors on shared cores: a second thread only waits.
torch.set_num_threads(1)

# Conversions are kept for this run alone, and never where the user's are.
CACHE = tempfile.mkdtemp(prefix="foretoken-tests-")
os.environ["XDG_CACHE_HOME"] = CACHE
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
