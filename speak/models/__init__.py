"""The networks of SPEAK, a file each."""
