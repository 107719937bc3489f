"""What every room needs: errors, paths, files written whole, intervals, logs of measured runs, command-line manners."""
