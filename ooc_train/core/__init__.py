"""What every room stands on: files checked as they are read, and whole once they are written."""
