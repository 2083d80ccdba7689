"""What reads runs: tables, differences."""
