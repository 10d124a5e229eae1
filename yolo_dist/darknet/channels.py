"""Colour images for a network that sees one channel: their brightness."""

from torch import Tensor

from yolo_dist.errors import ModelError

BRIGHTNESS = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601), as OpenCV and Pillow convert to grey."""
BRIGHTEST = 255
COLOUR, GREY = 3, 1


def in_channels(images: Tensor, channels: int) -> Tensor:
    """Images with as many channels as a network sees.

    Args:
        images: [B, C, H, W], float in 0..1 or uint8; RGB where C is 3.
        channels: of the network's input.

    Returns:
        The images themselves if they have as many channels; else their brightness [B, 1, H, W], rounded to a 255th, so
        that floats are what bytes are.

    Raises:
        ModelError: there is no way from these images to so many channels.
    """
    if images.shape[1] == channels:
        return images
    if (images.shape[1], channels) != (COLOUR, GREY):
        raise ModelError(
            f"[net] has channels={channels}, and images have {images.shape[1]}; take a network of {COLOUR} (colour) or "
            f"{GREY} (brightness)"
        )
    scale = BRIGHTEST if images.is_floating_point() else 1
    red, green, blue = (images[:, channel : channel + 1].float() * scale for channel in range(COLOUR))
    grey = (red * BRIGHTNESS[0] + green * BRIGHTNESS[1] + blue * BRIGHTNESS[2]).round_()
    return (grey / scale).to(images.dtype)
