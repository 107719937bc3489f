"""what makes numbers: one folder a notebook, one file a claim

An experiment compares arms at equal tokens over several seeds, records command, device, seeds and seconds, and states
its claims with the floor that was asked of them, whether they hold or not. `--scale 0.02` rehearses one in a minute and
keeps the log in data/run/rehearsal/.
"""
