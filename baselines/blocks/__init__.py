"""What several weakly supervised methods share."""
