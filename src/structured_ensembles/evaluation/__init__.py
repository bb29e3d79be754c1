"""Numbers, pictures and tables about a finished predictor (the pictures need matplotlib: ``evaluation.pictures``)."""
