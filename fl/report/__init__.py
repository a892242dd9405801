"""What a run shows and leaves behind: lines, tables, pictures, files."""
