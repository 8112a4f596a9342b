"""The environments that come with the package, one in each file."""
