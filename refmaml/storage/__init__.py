"""Files nobody has to trust and nobody ever sees half of: whole writes, locked folders, archives read within bounds."""
