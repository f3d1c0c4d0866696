"""A finished run's SAEs packed for others: read (`facts`), described (`card`, `page`), written (`pack`), sent (`upload`)."""
