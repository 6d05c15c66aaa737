from tests.checkpoints import exported_folder, official_folder, saved_folder

__all__ = ["exported_folder", "official_folder", "saved_folder"]
