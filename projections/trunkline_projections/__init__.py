"""Pure folds over the log, and the runner that keeps a fold up to date."""
