from tests.checkpoints import exported_fgclip_folder, exported_folder, official_fgclip_folder, official_folder

__all__ = ["exported_fgclip_folder", "exported_folder", "official_fgclip_folder", "official_folder"]
