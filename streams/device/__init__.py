"""The device's side: publish windows, or answer them on the device and upload within a budget."""
