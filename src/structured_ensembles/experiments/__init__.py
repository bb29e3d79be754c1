"""Many runs under one protocol, each with its folder."""
