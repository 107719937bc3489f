"""a model in less room: INT4, the experts in four bits"""
