"""The command `structens`: one file per verb. Nothing here imports torch before a verb runs."""
