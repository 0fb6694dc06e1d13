"""The CPU engine's kernels: C++ behind a plain C interface, and what Python needs to call them.

`csrc/abi.h` is the interface, `abi.py` mirrors it, `library.py` calls it, `variants.py` finds and
loads what was built for this processor, `packed_model.py` reads a decoder's packed weights. Nothing
here needs torch.
"""
