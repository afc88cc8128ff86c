"""What lies in the folder of a run: how it is written, found and read."""
