"""errors, paths, files written whole, intervals, the log of a measured run, the ledger, command-line manners"""
