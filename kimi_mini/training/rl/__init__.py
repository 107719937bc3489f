"""Reinforcement learning with verifiable rewards: objective, rewards, rounds."""
