"""The device's side: publish windows, or answer them on the device and upload within a budget."""

from acclimate.streams.device.client import DeviceClient

__all__ = ["DeviceClient"]
