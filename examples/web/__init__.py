"""A web application whose web server stores phone numbers that only a worker can read."""
