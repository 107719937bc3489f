"""Muon, MuonClip with QK-Clip, and the schedules of the learning rate."""
