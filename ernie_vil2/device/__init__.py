"""What the package needs of the machine: device, processor, ranks, transfers and optional packages."""
