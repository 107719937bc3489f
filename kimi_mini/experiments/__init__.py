"""One file for each measured claim. `python -m kimi_mini.experiments.NAME` runs it and writes data/results/NAME.json.

An experiment compares arms at equal tokens over several seeds, records command, device, seeds and seconds, and states its
claims with the floor that was asked of them, whether they hold or not. `--scale 0.02` rehearses one in a minute (and writes
nowhere but to the given folder).
"""
