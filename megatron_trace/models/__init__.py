"""Model families: architecture, weight tables, folders, predictor. Facts, without a framework."""
