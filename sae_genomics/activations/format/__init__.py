"""The files of extraction: tokens and activations as HDF5, their chunks, checksums and dtypes."""
