"""What the gateway answers itself, one function an endpoint, with the shape of any other service's handlers."""
