"""What goes wrong with pictures, in terms of what the user can do about it."""


class PictureError(ValueError):
    """An input cannot be found or drawn, or a picture cannot be written."""
