"""What stored runs say: averaged, compared with each other and with print."""
