from tests.checkpoints import (
    exported_fgclip_folder,
    exported_folder,
    exported_r2d2_folder,
    exported_stage_folder,
    official_fgclip_folder,
    official_folder,
    official_r2d2_folder,
    official_stage_folder,
)

__all__ = [
    "exported_fgclip_folder",
    "exported_folder",
    "exported_r2d2_folder",
    "exported_stage_folder",
    "official_fgclip_folder",
    "official_folder",
    "official_r2d2_folder",
    "official_stage_folder",
]
