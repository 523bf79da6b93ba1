"""Classifiers: Neural ODEs, whose solver odebench runs, and discrete networks."""
