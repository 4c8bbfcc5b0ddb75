"""Kernel source -> variants -> cubins and one manifest -> C++ registry. Imports triton, never torch."""
