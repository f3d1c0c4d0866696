"""What each kernel computes, written to be read: NumPy, SciPy, h5py and torch, one file per file of `kernels`."""
