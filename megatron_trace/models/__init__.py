"""Model families: their architecture, weight tables, folders and predictor. Facts, apart from any framework."""
