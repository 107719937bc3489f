"""errors, paths, files written whole, intervals, logs of measured runs, the ledger, command-line manners, denials"""
