"""What people look at: one HTML file that works offline."""
