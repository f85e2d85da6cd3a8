"""What comes from outside is checked here, and what goes out is written whole: arrays, files, pickles, tables."""
