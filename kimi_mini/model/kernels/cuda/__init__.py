"""Kernels for an NVIDIA GPU; each falls back to a version that runs anywhere, and can be compiled with its layer.

attention    FlexAttention, which gives the exact maximum of every row on the way
experts      gather and collect as permutations, forward and backward: nothing is scattered
head         logits and cross-entropy in chunks
norm         by hand alone, in plain operations where a compiler fuses them
"""
