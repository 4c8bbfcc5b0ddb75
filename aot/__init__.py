"""Kernel source -> variants -> images and a manifest -> C++ registry. Imports triton, not torch."""
