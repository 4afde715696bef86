"""seed -> layers -> /etc/portage -> a room to build in."""
