"""The structured learner of a stream of tasks: who owns which channel, and what follows from it."""
