from tests.checkpoints import (
    converted_fgclip_folder,
    exported_fgclip_folder,
    exported_folder,
    official_fgclip_folder,
    official_folder,
)

__all__ = [
    "converted_fgclip_folder",
    "exported_fgclip_folder",
    "exported_folder",
    "official_fgclip_folder",
    "official_folder",
]
