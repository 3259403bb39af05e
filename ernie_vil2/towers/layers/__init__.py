"""The layers that the configurations of towers build, and nothing but them needs Paddle here."""
