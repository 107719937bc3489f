"""config -> layers -> KimiMini -> checkpoint; kernels/: the same functions, faster"""
