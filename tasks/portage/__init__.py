"""Portage's formats and programs: GPKG files, indexes, emerge(1), /etc/portage."""
