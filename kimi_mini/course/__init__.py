"""what a reader of the notebooks sees: figures, sliders, exercises"""
