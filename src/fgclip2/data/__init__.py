"""Records, image opening, and the bilingual demo data."""
