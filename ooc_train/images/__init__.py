"""Raw files of images and of their labels: IDX, NumPy's, and folders of images by class."""
